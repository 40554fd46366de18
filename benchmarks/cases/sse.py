"""500 open event streams through the proxy: how late an event is, and what a stream costs.

python -m benchmarks.cases.sse
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass

from benchmarks.processes import free_port, resident_bytes
from benchmarks.stand import Broker, Stand, stand

STREAMS = 500
EVENTS = 20
EVERY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Streams:
    """Seconds from the API's write to the caller's read; bytes of the broker's memory a stream."""

    p50: float
    p99: float
    events: int
    bytes_a_stream: float


def measure(stand_: Stand) -> Streams:
    port = free_port()
    with stand_.broker(IGNITION_API_URL=f"http://127.0.0.1:{port}") as broker:
        broker.get("/token/acme", stand_.authorization)
        return asyncio.run(_streamed(broker, stand_.key, port))


async def _streamed(broker: Broker, key: str, port: int) -> Streams:
    before = resident_bytes(broker.process)
    async with await asyncio.start_server(_send_events, "127.0.0.1", port, backlog=STREAMS):
        request = (
            f"GET /proxy/acme/events HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer {key}\r\n\r\n"
        ).encode()
        readers = [asyncio.create_task(_read_events(broker.port, request)) for _ in range(STREAMS)]
        await asyncio.sleep(EVENTS * EVERY_SECONDS / 2)
        during = resident_bytes(broker.process)
        late = [seconds for each in await asyncio.gather(*readers) for seconds in each]
    cuts = statistics.quantiles(late, n=100)
    return Streams(statistics.median(late), cuts[98], len(late), (during - before) / STREAMS)


async def _send_events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
    for _ in range(EVENTS):
        await asyncio.sleep(EVERY_SECONDS)
        writer.write(b"data: %.6f\n\n" % time.monotonic())
        await writer.drain()
    writer.close()


async def _read_events(port: int, request: bytes) -> list[float]:
    """How late each event was."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    late = []
    while len(late) < EVENTS:
        line = await reader.readline()
        if not line:
            raise RuntimeError(f"a stream ended after {len(late)} events")
        if line.startswith(b"data: "):
            late.append(time.monotonic() - float(line[6:]))
    writer.close()
    return late


def main() -> None:
    with stand() as standing:
        print(measure(standing))


if __name__ == "__main__":
    main()
