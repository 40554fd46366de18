"""Deadlines that are judged after what has arrived was taken.

libuv runs the timers that are due before it looks at the sockets, and asyncio cancels a task at
its deadline although its answer was read in the same turn of the loop. So after a pause of the
process, or a turn that took long, `asyncio.timeout` throws an answer away that lies in the socket.
Where that answer holds the only good refresh token, the grant is lost with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

TURNS = 20
"""How many turns of the loop are given to what has arrived: an answer of 1 MiB takes a few."""
LATE_SECONDS = 0.25
"""A timer that fires so late tells that the process was paused, or its loop was blocked."""
SECOND_WAIT_SECONDS = 1.0
"""What is given to what is still on its way when the process goes on after a pause."""


async def is_done_within(future: asyncio.Future[Any], seconds: float) -> bool:
    """Whether ``future`` is done after at most ``seconds``; it is never cancelled.

    At the deadline the loop first polls its sockets a few more times. Where the deadline is noticed
    far too late, what is on its way has `SECOND_WAIT_SECONDS` more.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + max(0.0, seconds)
    await asyncio.wait([future], timeout=max(0.0, seconds))
    if not future.done() and loop.time() - deadline > LATE_SECONDS:
        await asyncio.wait([future], timeout=SECOND_WAIT_SECONDS)
    for _ in range(TURNS):
        if future.done():
            break
        await asyncio.sleep(0)
    return future.done()


async def result_within(work: Coroutine[Any, Any, Result], seconds: float) -> Result:
    """What ``work`` returns or raises within ``seconds``, by `is_done_within`; it is cancelled at
    the end. Raises `TimeoutError`."""
    task = asyncio.create_task(work)
    try:
        if not await is_done_within(task, seconds):
            raise TimeoutError
        return task.result()
    finally:
        task.cancel()
