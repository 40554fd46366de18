"""Notices that a caller disconnects while it is queued, before its request is read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Message, Receive

Result = TypeVar("Result")


class QueuedCaller:
    """Listens to the caller while something else is waited for.

    What it sends meanwhile is kept, at most one piece of a body, and comes by `receive` later.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: deque[Message] = deque()
        self.is_gone = False

    async def unless_gone(self, work: Coroutine[Any, Any, Result]) -> Result | None:
        """The result of ``work``, or what it raises; None, and ``work`` cancelled, if the caller
        disconnects first."""
        working = asyncio.create_task(work)
        listening = asyncio.create_task(self._until_gone())
        try:
            await asyncio.wait({working, listening}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            self.is_gone = True
            return None
        finally:
            for task in (working, listening):
                task.cancel()
            await asyncio.gather(working, listening, return_exceptions=True)

    async def receive(self) -> Message:
        """What was kept, then what still comes."""
        return self._kept.popleft() if self._kept else await self._receive()

    async def _until_gone(self) -> None:
        while True:
            message = await self._receive()
            self._kept.append(message)
            if message["type"] == "http.disconnect":
                return
            if message.get("more_body", False):
                # The rest stays in the server's buffer, which holds the caller back.
                await asyncio.Event().wait()
