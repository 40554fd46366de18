"""What of a caller's body is kept for a replay, and how its disconnect is seen."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.values import ManualClock

from ignition_broker.outbound.errors import BodyBrokeOff
from ignition_broker.proxy.caller_pace import CallerPace
from ignition_broker.proxy.request_body import RequestBody

LIMIT = 10


def piece(body: bytes, *, more: bool) -> dict:
    return {"type": "http.request", "body": body, "more_body": more}


DISCONNECT = {"type": "http.disconnect"}


def body_of(*messages: dict, declared: int = 0) -> RequestBody:
    coming = list(messages)

    async def receive():
        return coming.pop(0)

    return RequestBody(receive, LIMIT, declared, CallerPace(ManualClock().monotonic, 30.0))


async def read(body: RequestBody) -> list[bytes]:
    return [chunk async for chunk in body.chunks()]


async def test_a_body_within_the_limit_is_read_once_and_replayed():
    body = body_of(piece(b"12345", more=True), piece(b"", more=True), piece(b"67890", more=False))
    assert await read(body) == [b"12345", b"67890"]
    assert body.can_replay
    assert await read(body) == [b"12345", b"67890"]


async def test_a_replay_goes_on_where_the_first_reading_stopped():
    body = body_of(piece(b"one", more=True), piece(b"two", more=False))
    async for _chunk in body.chunks():
        break
    assert await read(body) == [b"one", b"two"]


async def test_a_body_beyond_the_limit_is_not_kept():
    body = body_of(piece(b"12345", more=True), piece(b"678901", more=False))
    assert await read(body) == [b"12345", b"678901"]
    assert not body.can_replay
    assert await read(body) == []


def test_a_body_that_announces_too_much_is_not_kept_from_the_start():
    assert body_of(declared=LIMIT).can_replay
    assert not body_of(declared=LIMIT + 1).can_replay


async def test_a_caller_that_disconnects_amid_its_body_breaks_it_off():
    body = body_of(piece(b"12345", more=True), DISCONNECT)
    with pytest.raises(BodyBrokeOff):
        await read(body)
    assert body.is_caller_gone
    assert await body.caller_gone()


async def test_a_disconnect_is_not_looked_for_while_the_body_is_still_read():
    body = body_of(piece(b"12345", more=False), DISCONNECT)
    watching = asyncio.create_task(body.caller_gone())
    await asyncio.sleep(0)
    assert not watching.done()
    assert await read(body) == [b"12345"], "the watcher took none of it"
    assert await watching


async def test_a_disconnect_after_the_whole_answer_is_none():
    body = body_of(DISCONNECT)
    body.has_none()
    body.is_answered = True
    assert not await body.caller_gone()
    assert not body.is_caller_gone
