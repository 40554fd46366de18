"""Callers who send or read very slowly must not block others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time

import httpx
import pytest
import uvicorn
from tests.conftest import free_port, wait_until
from tests.service.wire import Answer, RawCaller

from ignition_broker.app import create_app
from ignition_broker.proxy import forward
from ignition_broker.server.http_protocol import ProxyHttpProtocol
from ignition_broker.settings import Settings

AT_ONCE = 4
GRACE = 0.5


@pytest.fixture(scope="module")
def more_settings(upstream):
    return {
        "IGNITION_API_URL": f"http://127.0.0.1:{upstream.port}",
        "BROKER_PROXY_TENANT_CONCURRENCY": str(AT_ONCE),
    }


@pytest.fixture(scope="module")
def keys(broker):
    broker.connect("acme")
    return [broker.make_key(name, ["proxy"], ["acme"]) for name in ("slow", "quick")]


@contextlib.contextmanager
def slow_bodies(port: int, key: str, number: int):
    """So many calls that have announced a body and send none of it."""
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            head = RawCaller(port, key).head(b"POST /x", b"Content-Length: 100", is_kept=True)
            connection.sendall(head + b"x")
        time.sleep(0.3)
        yield


def test_slow_bodies_of_one_key_leave_the_tenants_other_keys_a_share(broker, keys, upstream):
    slow, quick = keys
    with slow_bodies(broker.port, slow, 3 * AT_ONCE), broker.client(quick) as service:
        began_at = time.monotonic()
        for _ in range(10):
            assert service.get("/proxy/acme/x").status_code == 200
        assert time.monotonic() - began_at < 2
        with broker.client(slow) as more:
            refused = more.get("/proxy/acme/x")
        assert (refused.status_code, refused.headers["broker-error"]) == (503, "unavailable")


@pytest.fixture(scope="module")
def impatient(broker, keys):
    """The whole app in this process, which waits for slow callers half a second."""
    patched = pytest.MonkeyPatch()
    patched.setattr(forward, "BODY_GRACE_SECONDS", GRACE)
    patched.setattr(forward, "ANSWER_GRACE_SECONDS", GRACE)
    port = free_port()
    fields = {name.lower(): value for name, value in broker.settings.items()}
    app = create_app(Settings(_env_file=None, **{**fields, "broker_port": port}))
    config = uvicorn.Config(app, port=port, http=ProxyHttpProtocol, log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started and httpx.get(f"http://127.0.0.1:{port}/readyz").is_success)
    yield port
    server.should_exit = True
    thread.join(20)
    patched.undo()


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 100000", b"Transfer-Encoding: chunked"], ids=["sized", "chunked"]
)
def test_a_body_that_drips_is_answered_408_and_its_place_is_free(
    impatient, keys, upstream, framing
):
    slow = RawCaller(impatient, keys[0])
    piece = b"1\r\nx\r\n" if b"chunked" in framing else b"x"
    with contextlib.ExitStack() as stack:
        dripping = [stack.enter_context(slow.connect()) for _ in range(AT_ONCE)]
        for connection in dripping:
            connection.sendall(slow.head(b"POST /x", framing, is_kept=True))
        began_at = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while time.monotonic() - began_at < GRACE + 0.6:
                for connection in dripping:
                    connection.sendall(piece)
                time.sleep(0.1)
        answers = [Answer.read(connection) for connection in dripping]
    for answer in answers:
        assert answer.status == 408
        assert answer.values(b"broker-error") == [b"request-timeout"]
        assert json.loads(answer.body)["type"] == "urn:ignition-broker:request-timeout"
    assert slow.call(b"GET /x").status == 200


def test_a_body_that_comes_at_a_sound_rate_is_waited_for(impatient, keys, upstream):
    slow = RawCaller(impatient, keys[0])
    size, pieces = 600, 12
    with slow.connect() as connection:
        connection.sendall(slow.head(b"POST /x", b"Content-Length: %d" % (size * pieces)))
        for _ in range(pieces):
            connection.sendall(b"x" * size)
            time.sleep(0.15)
        assert Answer.read(connection).status == 200
    assert upstream.last.body_bytes == size * pieces


def test_a_pause_of_the_apis_own_costs_the_caller_nothing(impatient, keys, upstream):
    async def late(exchange) -> None:
        await exchange.read_body()
        await asyncio.sleep(3 * GRACE)
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(2):
            await asyncio.sleep(2 * GRACE)
            await exchange.send(b"2\r\nok\r\n")
        await exchange.send(b"0\r\n\r\n")

    upstream.plays(late)
    caller = RawCaller(impatient, keys[0])
    answer = caller.call(b"POST /x", b"Content-Length: 2", body=b"ab")
    assert answer.status == 200
    assert answer.body.endswith(b"0\r\n\r\n")


def test_an_answer_that_is_taken_by_drips_is_broken_off(impatient, keys, upstream):
    async def large(exchange) -> None:
        await exchange.read_body()
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        for _ in range(100):
            await exchange.send(b"x" * 1_000_000)

    upstream.plays(large)
    caller = RawCaller(impatient, keys[0])
    with contextlib.ExitStack() as stack:
        for _ in range(AT_ONCE):
            connection = stack.enter_context(caller.connect())
            connection.sendall(caller.head(b"GET /x"))
        wait_until(lambda: len(upstream.exchanges) == AT_ONCE, 5)
        upstream.script = quick
        assert caller.call(b"GET /x").status == 200


async def quick(exchange) -> None:
    await exchange.read_body()
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
