"""What ends a call whose caller has gone or is too slow."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.values import ManualClock

from ignition_broker.proxy.caller_disconnects import CallerDisconnects
from ignition_broker.proxy.caller_pace import CallerPace, CallerTooSlow
from ignition_broker.proxy.request_body import RequestBody


async def test_a_call_that_waits_for_a_slow_body_is_ended_with_a_reason():
    clock = ManualClock()
    pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def receive():
        return {"type": "http.request", "body": await pieces.get(), "more_body": True}

    body = RequestBody(receive, 1000, 0, CallerPace(clock.monotonic, 30.0))
    disconnects = CallerDisconnects()
    seen = []

    async def call() -> None:
        with disconnects.watch(body):
            seen.extend([chunk async for chunk in body.chunks()])

    task = asyncio.create_task(call())
    for _ in range(5):
        pieces.put_nowait(b"x")
        await asyncio.sleep(0)
        await clock.sleep(8)
    with pytest.raises(CallerTooSlow, match="500 bytes a second"):
        await asyncio.wait_for(task, 2)
    assert not task.cancelled()
