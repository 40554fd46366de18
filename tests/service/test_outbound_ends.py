"""A server that closes each connection at once: the call fails, and nothing else does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
import uvloop

from ignition_broker.outbound.errors import Unreachable
from ignition_broker.outbound.http1_pool import Limits, Pool

CALLS = 200
UNASKED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.contextmanager
def server(greeting: bytes, *, resets: bool) -> Iterator[int]:
    """Its port. Each connection gets ``greeting`` and ends, by a reset or in order."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=CALLS)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _address = listening.accept()
                if resets:
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                with contextlib.suppress(OSError):
                    connection.sendall(greeting)
                connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield int(listening.getsockname()[1])
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(5)


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize("resets", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize("greeting", [b"", UNASKED], ids=["silent", "unasked"])
def test_a_connection_that_ends_as_it_begins_is_an_error_of_the_call_alone(
    run, resets, greeting, caplog
):
    told: list[object] = []

    async def call_all(port: int) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, what: told.append(what))
        pool = Pool(f"http://127.0.0.1:{port}", Limits(5, 5, 5, 20, 20))

        async def body():
            yield b"x" * 100_000

        async def call(number: int) -> None:
            with contextlib.suppress(Unreachable):
                await pool.send("acme", "POST", b"/", [], body() if number % 2 else None)

        await asyncio.gather(*(call(number) for number in range(CALLS)))
        await pool.aclose()
        await asyncio.sleep(0.05)

    with server(greeting, resets=resets) as port, caplog.at_level(logging.WARNING):
        run(call_all(port))
    assert told == []
    assert caplog.records == []
