"""1,000 callers of one tenant whom its token has become too short for: one refresh serves them all.

python -m benchmarks.cases.stampede
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass

import httpx

from benchmarks.cases.refresh import provider
from benchmarks.stand import LIFETIME, Broker, Stand, stand

CALLERS = 1000
TENANT = "stampede"
TOO_LONG = int(LIFETIME.total_seconds()) - 1


@dataclass(frozen=True, slots=True)
class Stampede:
    """Seconds from the question to the answer, over all callers; ``refreshes`` that the provider
    saw; ``quiet_seconds``: one caller's whole refresh alone."""

    p50: float
    p99: float
    refreshes: int
    quiet_seconds: float


def measure(on: Stand) -> Stampede:
    on.store_grants([TENANT, "alone"])
    with provider(on) as url, on.broker(IGNITION_TOKEN_URL=f"{url}/token") as broker:
        began = time.monotonic()
        broker.get(f"/token/alone?min_ttl={TOO_LONG}", on.authorization)
        quiet = time.monotonic() - began
        before = httpx.get(f"{url}/counts").json()["used"]
        waits = asyncio.run(_asked_at_once(broker, on.key))
        refreshes = httpx.get(f"{url}/counts").json()["used"] - before
    return Stampede(
        statistics.median(waits), statistics.quantiles(waits, n=100)[98], refreshes, quiet
    )


async def _asked_at_once(broker: Broker, key: str) -> list[float]:
    # Internal services have their connections already.
    opened = [await asyncio.open_connection("127.0.0.1", broker.port) for _ in range(CALLERS)]
    request = (
        f"GET /token/{TENANT}?min_ttl={TOO_LONG} HTTP/1.1\r\nHost: b\r\n"
        f"Authorization: Bearer {key}\r\n\r\n"
    ).encode()

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
        began = time.monotonic()
        writer.write(request)
        line = await reader.readline()
        if b" 200 " not in line:
            raise RuntimeError(f"a caller got {line!r}")
        return time.monotonic() - began

    waits = await asyncio.gather(*(ask(*each) for each in opened))
    for _reader, writer in opened:
        writer.close()
    return waits


def main() -> None:
    with stand() as standing:
        print(measure(standing))


if __name__ == "__main__":
    main()
