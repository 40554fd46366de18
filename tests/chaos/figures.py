"""Two figures of four replicas in good health: a stampede at expiry, and how fast a disconnect
is seen.

    python -m tests.chaos.figures
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time

import aiohttp

from tests.chaos.cluster import Cluster, cluster

REPLICAS = 4
CALLERS = 1000
ROUND_TRIP_SECONDS = 0.5
LIFETIME_SECONDS = 3600
DISCONNECTS = 100


async def stampede(running: Cluster, rounds: int = 5) -> list[dict]:
    """1,000 callers over all replicas whom the current token has become too short for."""
    running.connect("stampede")
    key = running.replicas[0].make_key("stampede", ["token"], ["*"])
    headers = {"Authorization": f"Bearer {key}"}
    too_long = f"min_ttl={LIFETIME_SECONDS - 1}"
    figures = []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        for _ in range(rounds):
            await asyncio.sleep(1.1)
            # The connections are already open, like those of internal services.
            await asyncio.gather(
                *(_timed(session, f"{url}/healthz") for url in running.urls for _ in range(250))
            )
            before = running.counters()["refreshes"]
            running.control("fail", endpoint="token", delay_seconds=ROUND_TRIP_SECONDS)
            waits = await asyncio.gather(
                *(
                    _timed(session, f"{running.urls[n % REPLICAS]}/token/stampede?{too_long}")
                    for n in range(CALLERS)
                )
            )
            figures.append(
                {
                    "refreshes": running.counters()["refreshes"] - before,
                    "p50_seconds": round(statistics.median(waits), 3),
                    "p99_seconds": round(statistics.quantiles(waits, n=100)[98], 3),
                    "max_seconds": round(max(waits), 3),
                }
            )
    return figures


async def _timed(session: aiohttp.ClientSession, url: str) -> float:
    began = time.monotonic()
    async with session.get(url) as answer:
        assert answer.status == 200, await answer.text()
        await answer.read()
    return time.monotonic() - began


async def disconnects(running: Cluster, times: int = DISCONNECTS) -> dict:
    """From the admin's answer to the last token that any replica served."""
    admin = {"Authorization": f"Bearer {running.replicas[0].admin_key}"}
    seen: list[float] = []
    async with aiohttp.ClientSession(headers=admin) as session:
        for number in range(times):
            await asyncio.to_thread(running.connect, "leaving")
            tokens = [f"{url}/token/leaving" for url in running.urls]
            for url in tokens:
                async with session.get(url) as answer:
                    assert answer.status == 200
            at = running.urls[number % REPLICAS]
            async with session.post(f"{at}/admin/tenants/leaving/disconnect") as answer:
                assert answer.status == 200
            began = time.monotonic()
            seen.append(max(await asyncio.gather(*(_gone(session, u, began) for u in tokens))))
    return {"times": times, "median_seconds": statistics.median(seen), "max_seconds": max(seen)}


async def _gone(session: aiohttp.ClientSession, url: str, began: float) -> float:
    """When the last token was served, 0 if none was."""
    last = 0.0
    while time.monotonic() - began < 5:
        async with session.get(url) as answer:
            if answer.status == 409:
                return last
        last = time.monotonic() - began
    raise AssertionError("a token is still served after 5 s")


async def measured(running: Cluster) -> dict:
    return {
        "round_trip_seconds": ROUND_TRIP_SECONDS,
        "stampede_of_1000_callers_on_4_replicas": await stampede(running),
        "disconnects": await disconnects(running),
    }


def main() -> None:
    with cluster(
        REPLICAS, lifetime_seconds=LIFETIME_SECONDS, provider_timeout_seconds=5
    ) as running:
        print(json.dumps(asyncio.run(measured(running)), indent=2))


if __name__ == "__main__":
    main()
