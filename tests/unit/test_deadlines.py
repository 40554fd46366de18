"""Data that has arrived is read before a deadline ends the wait, on both event loops."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from ignition_broker import deadlines
from ignition_broker.deadlines import is_done_within

ANSWER = b"x" * 300_000
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


def run_on(new_loop: Callable[[], Any], work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(work)


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"])
def new_loop(request):
    return request.param


async def connected() -> tuple[asyncio.StreamReader, asyncio.StreamWriter, socket.socket]:
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * len(ANSWER))
    reader, writer = await asyncio.open_connection(sock=ours)
    return reader, writer, theirs


async def whole(reader: asyncio.StreamReader) -> bytes:
    """Through several turns of the loop, as an answer's head and body are read."""
    head = await reader.readexactly(1)
    return head + await reader.readexactly(len(ANSWER) - 1)


def test_an_answer_that_came_while_the_loop_was_blocked_past_the_deadline_is_taken(new_loop):
    async def blocked() -> None:
        for seconds in (0.01, 0.05, 0.1):
            reader, writer, theirs = await connected()
            reading = asyncio.create_task(whole(reader))
            waiting = asyncio.create_task(is_done_within(reading, seconds))
            await asyncio.sleep(0)
            theirs.sendall(ANSWER[:150_000])
            time.sleep(0.2)  # noqa: ASYNC251
            theirs.sendall(ANSWER[150_000:])
            assert await waiting
            assert len(reading.result()) == len(ANSWER)
            writer.close()
            theirs.close()

    run_on(new_loop, blocked())


def test_the_librarys_timeout_throws_such_an_answer_away(new_loop):
    """Why there is a function of our own; where this fails one day, it may go."""

    async def blocked() -> None:
        reader, writer, theirs = await connected()

        async def read() -> bytes:
            async with asyncio.timeout(0.05):
                return await whole(reader)

        reading = asyncio.create_task(read())
        await asyncio.sleep(0)
        theirs.sendall(ANSWER)
        time.sleep(0.2)  # noqa: ASYNC251
        with pytest.raises(TimeoutError):
            await reading
        writer.close()
        theirs.close()

    run_on(new_loop, blocked())


def test_what_comes_a_little_after_a_long_pause_is_taken_too(new_loop, monkeypatch):
    """The rest of the answer was held back by the sender while this process read nothing."""
    monkeypatch.setattr(deadlines, "LATE_SECONDS", 0.1)
    monkeypatch.setattr(deadlines, "SECOND_WAIT_SECONDS", 0.4)

    async def paused() -> None:
        reader, writer, theirs = await connected()
        reading = asyncio.create_task(whole(reader))
        waiting = asyncio.create_task(is_done_within(reading, 0.05))
        await asyncio.sleep(0)
        theirs.sendall(ANSWER[:10])
        time.sleep(0.3)  # noqa: ASYNC251
        asyncio.get_running_loop().call_later(0.1, theirs.sendall, ANSWER[10:])
        assert await waiting
        writer.close()
        theirs.close()

    run_on(new_loop, paused())


def test_what_has_not_come_is_waited_for_no_longer_than_asked_and_never_cancelled(new_loop):
    async def silent() -> None:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        assert not await is_done_within(answer, 0.1)
        assert 0.09 < time.monotonic() - began < 0.4
        assert not answer.done()
        assert not await is_done_within(answer, -1.0)
        answer.set_result(None)
        assert await is_done_within(answer, 0.0)

    run_on(new_loop, silent())


def test_whoever_stops_waiting_leaves_the_work_alone(new_loop):
    async def left() -> None:
        work = asyncio.create_task(asyncio.sleep(0.05, "done"))
        waiting = asyncio.create_task(is_done_within(work, 5))
        await asyncio.sleep(0)
        waiting.cancel()
        assert await work == "done"

    run_on(new_loop, left())
