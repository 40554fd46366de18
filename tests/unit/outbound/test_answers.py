"""A whole answer, and what it leaves behind."""

from __future__ import annotations

import asyncio
import gc

from ignition_broker.outbound.answers import whole_answer
from ignition_broker.outbound.client import ClientLimits, PoolTransport, http_client


async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    await writer.drain()
    writer.close()


async def test_a_request_leaves_nothing_that_only_the_garbage_collector_frees():
    """Ten thousand renewals left 440,000 objects, and other callers waited for their collection."""
    server = await asyncio.start_server(answer_once, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    limits = ClientLimits(connections=1, connect_timeout_seconds=5)
    async with server, http_client(PoolTransport(limits, server="it")) as http:
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(3):
                answer = await whole_answer(http, http.build_request("GET", url), limit_bytes=9)
                assert answer.body == b"{}"
            await asyncio.sleep(0.05)  # The closed connections are let go of by the event loop.
            gc.collect()
            left = [
                type(each).__qualname__
                for each in gc.garbage
                if type(each).__module__.startswith(("httpx", "httptools", "ignition_broker"))
            ]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert left == []
