"""How much of a body, and for how long, the broker's own routes take."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.web.asgi import DISCONNECT, ask, http_scope, pieces

from ignition_broker.web import body_limit
from ignition_broker.web.body_limit import LARGEST_BODY_BYTES, BodyLimit, whole_body
from ignition_broker.web.errors import BodyTooLarge, BodyTooSlow


def coming(*messages):
    left = list(messages)

    async def receive():
        if left:
            return left.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    return receive


class Route:
    """Notes the body that it is given, and what comes behind it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.after: list[str] = []

    async def __call__(self, _scope, receive, send) -> None:
        message = await receive()
        self.bodies.append(message["body"])
        assert not message["more_body"]
        self.after.append((await receive())["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def scope_of(*headers):
    scope = http_scope("POST", "/admin/api-keys", headers=headers)
    scope["state"]["request_id"] = "id-1"
    return scope


async def test_a_body_is_read_whole():
    assert await whole_body(coming(*pieces(b"ab", b"", b"c"))) == b"abc"


async def test_a_body_that_the_caller_broke_off_is_none():
    assert await whole_body(coming(pieces(b"ab", b"c")[0], DISCONNECT)) is None


async def test_a_body_as_large_as_the_limit_is_taken_and_a_byte_more_is_not():
    assert await whole_body(coming(*pieces(b"x" * 3, b"x" * 2)), 5) == b"xxxxx"
    with pytest.raises(BodyTooLarge, match="5 bytes"):
        await whole_body(coming(*pieces(b"x" * 3, b"x" * 3)), 5)


async def test_a_body_that_goes_on_for_ever_is_given_up_at_the_limit():
    async def receive():
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    with pytest.raises(BodyTooLarge):
        await whole_body(receive)


async def test_a_body_that_does_not_come_in_time_is_given_up(monkeypatch):
    monkeypatch.setattr(body_limit, "BODY_SECONDS", 0.01)
    with pytest.raises(BodyTooSlow):
        await whole_body(coming(pieces(b"a", b"b")[0]))


@pytest.mark.parametrize("header", [(b"content-length", b"3"), (b"transfer-encoding", b"chunked")])
async def test_a_route_sees_the_whole_body_in_one_piece(header):
    route = Route()
    answer = await ask(BodyLimit(route), scope_of(header), pieces(b"a", b"bc"))
    assert answer.status == 200
    assert route.bodies == [b"abc"]
    assert route.after == ["http.disconnect"]


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"0")]])
async def test_a_request_without_a_body_is_passed_on_as_it_is(headers):
    route = Route()
    assert (await ask(BodyLimit(route), scope_of(*headers))).status == 200
    assert route.bodies == [b""]


async def test_a_body_that_is_too_large_never_reaches_the_route():
    route = Route()
    body = pieces(b"x" * LARGEST_BODY_BYTES, b"x")
    answer = await ask(BodyLimit(route), scope_of((b"content-length", b"65537")), body)
    assert (answer.status, answer.code) == (413, "body-too-large")
    assert answer.headers[b"connection"] == b"close"
    assert answer.json["request_id"] == "id-1"
    assert route.bodies == []


async def test_a_body_that_is_too_slow_never_reaches_the_route(monkeypatch):
    monkeypatch.setattr(body_limit, "BODY_SECONDS", 0.01)
    route, sent = Route(), []

    async def send(message):
        sent.append(message)

    await BodyLimit(route)(scope_of((b"content-length", b"2")), coming(), send)
    assert sent[0]["status"] == 408
    assert dict(sent[0]["headers"])[b"connection"] == b"close"
    assert route.bodies == []


async def test_a_caller_that_left_is_not_answered():
    route = Route()
    answer = await ask(BodyLimit(route), scope_of((b"content-length", b"2")), [DISCONNECT])
    assert answer.messages == []
    assert route.bodies == []
