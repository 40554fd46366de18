"""Callers who send too much, or too slowly, before anybody knows who they are."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from tests.conftest import free_port, wait_until
from tests.service.wire import Answer, receive

from ignition_broker.server.client_limits import LARGEST_HEAD_BYTES, MOST_HEADERS, STALLED_TICKS
from ignition_broker.server.http_protocol import ProxyHttpProtocol
from ignition_broker.web import body_limit as limits

TICK = 0.3
HEAD = b"GET /healthz HTTP/1.1\r\nHost: broker\r\n"


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=15)


def answer(port: int, request: bytes) -> Answer:
    with connected(port) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request)
        return Answer.read(connection)


@pytest.mark.parametrize(
    "request_bytes",
    [
        HEAD + b"X: " + b"x" * LARGEST_HEAD_BYTES + b"\r\n\r\n",
        HEAD + b"X: " + b"x" * LARGEST_HEAD_BYTES,
        b"GET /" + b"x" * LARGEST_HEAD_BYTES,
        HEAD + b"".join(b"X-%d: x\r\n" % n for n in range(MOST_HEADERS)) + b"\r\n",
    ],
    ids=["one header", "a header without end", "a target without end", "many headers"],
)
def test_a_head_that_is_too_large_is_refused_and_the_connection_closed(broker, request_bytes):
    refused = answer(broker.port, request_bytes)
    assert refused.status == 431
    problem = json.loads(refused.body)
    assert problem["type"] == "urn:ignition-broker:headers-too-large"
    assert refused.values(b"x-request-id") == [problem["request_id"].encode()]
    assert refused.values(b"broker-error") == [b"headers-too-large"]
    assert answer(broker.port, HEAD + b"Connection: close\r\n\r\n").status == 200


def test_a_head_just_within_the_limits_is_read(broker):
    large = b"X: " + b"x" * (LARGEST_HEAD_BYTES - 200) + b"\r\n"
    many = b"".join(b"X-%d: x\r\n" % n for n in range(MOST_HEADERS - 10))
    for more in (large, many):
        assert answer(broker.port, HEAD + more + b"Connection: close\r\n\r\n").status == 200


def test_a_large_body_in_one_piece_with_a_small_head_is_no_large_head(broker):
    body = b"x" * (LARGEST_HEAD_BYTES - 10)
    request = b"POST /login HTTP/1.1\r\nHost: broker\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert answer(broker.port, request + body).status != 431


def test_what_follows_on_the_same_connection_is_measured_anew(broker):
    large = HEAD + b"X: " + b"x" * (LARGEST_HEAD_BYTES // 2) + b"\r\n\r\n"
    with connected(broker.port) as connection:
        for _ in range(4):
            connection.sendall(large)
            assert receive(connection, b'{"status":"alive"}').startswith(b"HTTP/1.1 200")


@pytest.fixture(scope="module")
def impatient():
    with served_impatiently(keep_alive_seconds=60) as port:
        yield port


@contextlib.contextmanager
def served_impatiently(*, keep_alive_seconds: int) -> Iterator[int]:
    """The protocol with short ticks, around an app that reads bodies and sends without end."""

    class Impatient(ProxyHttpProtocol):
        tick_seconds = TICK

    async def app(scope, receive, send) -> None:
        if scope["path"] == "/body":
            while (await receive()).get("more_body"):
                pass
        if scope["path"] == "/slow":
            await asyncio.sleep(TICK * (STALLED_TICKS + 4))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        endless = scope["path"] == "/endless"
        for _ in range(2_000 if endless else 1):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    port = free_port()
    config = uvicorn.Config(
        app,
        port=port,
        http=Impatient,
        log_config=None,
        lifespan="off",
        timeout_keep_alive=keep_alive_seconds,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield port
    server.should_exit = True
    thread.join(10)


def closed_after(connection: socket.socket, drip: bytes = b"") -> float:
    """Seconds until the other side closes, with a byte sent now and then."""
    began = time.monotonic()
    connection.settimeout(TICK / 4)
    while time.monotonic() - began < 15:
        try:
            if drip:
                connection.sendall(drip)
            if not connection.recv(1 << 16):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("begun", "drip"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nHost", b""),
        (b"GET / HTTP/1.1\r\nX: ", b"x"),
        (b"", b"\r\n"),
    ],
    ids=["nothing", "half a head", "a head byte by byte", "empty lines"],
)
def test_a_head_that_does_not_come_is_not_waited_for(impatient, begun, drip):
    with connected(impatient) as connection:
        connection.sendall(begun)
        assert TICK * 0.9 < closed_after(connection, drip) < TICK * 2 + 1


def test_a_second_head_on_a_connection_is_not_waited_for_either(impatient):
    with connected(impatient) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        received = 0
        while received < 65536:
            received += len(connection.recv(1 << 16))
        time.sleep(TICK * 3)
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        assert closed_after(connection, b"x") < TICK * 2 + 1


def test_an_idle_connection_is_kept_for_its_time_and_then_closed():
    with served_impatiently(keep_alive_seconds=1) as port, connected(port) as connection:
        for _ in range(3):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            receive(connection, b"\r\n0\r\n\r\n")
            time.sleep(0.7)
        assert 0.2 < closed_after(connection) < 0.3 + TICK + 1


def test_a_body_that_stops_and_an_answer_that_nobody_takes_are_given_up(impatient):
    with connected(impatient) as sender, connected(impatient) as reader:
        sender.sendall(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx")
        reader.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(TICK * (STALLED_TICKS + 3) + 1)
        assert closed_after(sender) < 1
        reader.settimeout(5)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := reader.recv(1 << 20):
                received += len(piece)
        assert received < 2_000 * 65536


def test_a_slow_body_that_keeps_coming_and_a_slow_answer_are_waited_for(impatient):
    with connected(impatient) as sender, connected(impatient) as waiter:
        waiter.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        sender.sendall(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\n")
        for _ in range(30):
            time.sleep(TICK / 2)
            sender.sendall(b"x")
        assert sender.recv(1 << 16).startswith(b"HTTP/1.1 200")
        assert waiter.recv(1 << 16).startswith(b"HTTP/1.1 200")


async def test_a_small_body_has_to_come_within_its_time(monkeypatch):
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.2)

    async def drip():
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"x", "more_body": True}

    with pytest.raises(limits.BodyTooSlow, match="did not come within"):
        await limits.whole_body(drip)
