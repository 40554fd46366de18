"""A rolling restart under load: `make rolling`.

    python -m tests.rolling.run --replicas 4 --drain 5

All replicas are restarted one after the other, then again with two workers each, behind a balancer
that looks at `/readyz` each second. Prints its figures as JSON and ends with 1 where a call failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

from tests.chaos.cluster import Cluster, cluster
from tests.conftest import Broker
from tests.rolling.balancer import Balancer
from tests.rolling.callers import Callers
from tests.service.wire import Exchange, RawUpstream

TENANTS = [f"tenant-{number}" for number in range(8)]
STREAM_SECONDS = 3.0
STREAM_PIECES = 10


async def answer(exchange: Exchange) -> None:
    """As the API: at once, or a piece at a time."""
    if b"/stream" not in exchange.target:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % STREAM_PIECES)
    for _ in range(STREAM_PIECES):
        await asyncio.sleep(STREAM_SECONDS / STREAM_PIECES)
        await exchange.send(b"x")


async def restart(replica: Broker, arguments: tuple[str, ...]) -> float:
    """How long it took to end."""
    began = time.monotonic()
    assert await asyncio.to_thread(replica.stop) == 0
    took = time.monotonic() - began
    replica.arguments = arguments
    await asyncio.to_thread(replica.start)
    return took


async def roll(running: Cluster, look_seconds: float, rounds: list[tuple[str, ...]], load: int):
    for tenant in TENANTS:
        await asyncio.to_thread(running.connect, tenant)
    key = running.replicas[0].make_key("rolling", ["token", "proxy"], ["*"])
    balancer = Balancer([replica.port for replica in running.replicas], look_seconds)
    stops: list[float] = []
    async with balancer.running():
        await balancer.until_ready(*balancer.ports)
        callers, until = Callers(balancer.port, key, TENANTS), asyncio.Event()
        calling = asyncio.create_task(callers.run(until, short=load, kept=load, streaming=load))
        for arguments in rounds:
            for replica in running.replicas:
                stops.append(await restart(replica, arguments))
                await balancer.until_ready(replica.port)
                await asyncio.sleep(look_seconds)
        until.set()
        await calling
    logs = "".join(replica.log_text() for replica in running.replicas)
    return {
        "restarts": len(stops),
        "calls": callers.calls,
        "streams": callers.streams,
        "failed": len(callers.failures),
        "failures": callers.failures[:10],
        "connections_refused": balancer.refused,
        "calls_cut_off": logs.count("calls_cut_off"),
        "tracebacks": logs.count("Traceback"),
        "seconds_to_stop": {"least": round(min(stops), 1), "most": round(max(stops), 1)},
    }


def run(
    *,
    replicas: int,
    drain_seconds: float,
    look_seconds: float,
    rounds: list[tuple[str, ...]],
    load: int,
) -> dict:
    """``load``: callers of each kind."""
    api = RawUpstream(script=answer).start()
    settings = {
        "IGNITION_API_URL": f"http://127.0.0.1:{api.port}",
        "BROKER_DRAIN_SECONDS": str(drain_seconds),
    }
    try:
        with cluster(
            replicas, lifetime_seconds=600, provider_timeout_seconds=5, settings=settings
        ) as running:
            return asyncio.run(roll(running, look_seconds, rounds, load))
    finally:
        api.stop()


def is_kept(figures: dict) -> bool:
    return not any(
        figures[name] for name in ("failed", "connections_refused", "calls_cut_off", "tracebacks")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--drain", type=float, default=5, help="seconds")
    parser.add_argument("--look", type=float, default=1, help="seconds between two looks")
    parser.add_argument("--load", type=int, default=8, help="callers of each of three kinds")
    given = parser.parse_args()
    figures = run(
        replicas=given.replicas,
        drain_seconds=given.drain,
        look_seconds=given.look,
        rounds=[(), ("--workers", "2")],
        load=given.load,
    )
    print(json.dumps(figures, indent=2))
    sys.exit(0 if is_kept(figures) else 1)


if __name__ == "__main__":
    main()
