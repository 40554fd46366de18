"""A server with many busy connections, whose event loop takes long for a turn."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time

import pytest
import uvicorn
from tests.conftest import free_port, wait_until

from ignition_broker.server.graceful_stop import StoppingServer, StopTimes
from ignition_broker.server.http_protocol import ProxyHttpProtocol

BUSY = 64
NEW = 200
PIPELINED = 400
WORK_SECONDS = 0.002
"""Of each request, in which the event loop does nothing else: 64 of them are a turn of 0.13 s."""
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class _Server(StoppingServer):
    @contextlib.contextmanager
    def capture_signals(self):
        yield


async def app(scope, receive, send) -> None:
    time.sleep(WORK_SECONDS)  # noqa: ASYNC251
    body = json.dumps([scope["client"], scope["server"]]).encode()
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(params=["uvloop", "asyncio"])
def port(request):
    port = free_port()
    config = uvicorn.Config(
        app,
        port=port,
        http=ProxyHttpProtocol,
        loop=request.param,
        log_config=None,
        access_log=False,
        lifespan="off",
    )
    server = _Server(config, StopTimes(drain_seconds=0, grace_seconds=0.2))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield port
    server.should_exit = True
    thread.join(10)


async def call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list:
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return json.loads(await reader.readexactly(length))


async def test_new_connections_are_not_left_waiting_by_the_busy_ones(port):
    """libuv alone accepts one a turn: these would take 200 turns, and half a minute and more."""

    async def keep_busy() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(writer):
            # There is always another request to answer, however slow this side is.
            writer.write(REQUEST * PIPELINED)
            while await reader.read(1 << 16):
                pass

    load = [asyncio.create_task(keep_busy()) for _ in range(BUSY)]
    await asyncio.sleep(0.5)
    began = time.monotonic()

    async def arrive() -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        own = list(writer.get_extra_info("sockname"))
        # The address that attempts are counted by, and the port that says which pages are shown.
        assert await call(reader, writer) == [own, ["127.0.0.1", port]]
        took = time.monotonic() - began
        writer.close()
        return took

    times = await asyncio.gather(*(arrive() for _ in range(NEW)))
    assert not any(task.done() for task in load)
    for task in load:
        task.cancel()
    assert max(times) < 10
