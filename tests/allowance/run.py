"""Four replicas share one tenant's calls among twenty keys: `make allowance-run`.

    python -m tests.allowance.run --calls 1000 --seconds 60 --windows 3

The provider is a process of its own that counts and enforces. The keys want three times what there
is; five of them want half of an equal share, the others all the same. One replica is killed amid a
window. With ``--others N``, somebody else uses N calls of each window too. Prints its figures as
JSON and ends with 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from dataclasses import asdict, dataclass

import httpx

from tests.allowance.load import Key, Load, Tally
from tests.allowance.verdict import LEAST_SHARE, LEAST_USED, figures
from tests.chaos.cluster import Cluster, cluster

MOST_THROTTLED = 2
"""429s of the provider in a window of which somebody else uses a part."""
SMALL_KEYS = 5
OVERLOAD = 3


@dataclass(frozen=True)
class Size:
    calls: int
    seconds: int
    windows: int
    replicas: int = 4
    keys: int = 20
    others: int = 0
    kill: bool = True


def make_keys(running: Cluster, size: Size) -> list[Key]:
    equal = size.calls / size.keys
    small = equal / 2
    large = (OVERLOAD * size.calls - SMALL_KEYS * small) / (size.keys - SMALL_KEYS)
    return [
        Key(
            f"key-{number}",
            running.replicas[0].make_key(f"key-{number}", ["proxy"], ["acme"]),
            small if number < SMALL_KEYS else large,
        )
        for number in range(size.keys)
    ]


async def use_by_others(running: Cluster, size: Size) -> None:
    """Calls the provider past the broker, at a steady pace."""
    key = running.replicas[0].make_key("others", ["token"], ["acme"])
    async with httpx.AsyncClient(timeout=30) as client:
        while True:
            began = time.monotonic()
            with contextlib.suppress(httpx.TransportError):
                shown = await client.get(
                    f"{running.urls[-1]}/token/acme", headers={"Authorization": f"Bearer {key}"}
                )
                await client.get(
                    f"{running.fake_url}/external/api/v1/reporting/clients?limit=1",
                    headers={"Authorization": f"Bearer {shown.json()['access_token']}"},
                )
            left = size.seconds / size.others - (time.monotonic() - began)
            await asyncio.sleep(max(left, 0))


async def play(running: Cluster, size: Size) -> tuple[Tally, list[Key], list[int]]:
    """Loads the replicas; returns what was seen, and the ends of the windows that were whole."""
    running.control("options", requests_per_hour=size.calls, requests_window_seconds=size.seconds)
    await asyncio.to_thread(running.connect, "acme")
    keys = await asyncio.to_thread(make_keys, running, size)
    load = Load(running.urls, keys, size.seconds)
    calling = asyncio.create_task(load.run())
    others = asyncio.create_task(use_by_others(running, size)) if size.others else None
    began = time.monotonic()
    if size.kill:
        # When a third of what there is will be used, so that the chunk matters.
        await asyncio.sleep(size.seconds / OVERLOAD / 3)
        process = running.replicas[0].process
        assert process is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
    # A window begins with the first call after the last one, so each lasts a little longer.
    length = size.seconds + min(1.0, size.seconds / 5) + 1
    await asyncio.sleep(size.windows * length + 1 - (time.monotonic() - began))
    load.stop()
    await calling
    if others is not None:
        others.cancel()
    ends = sorted(load.tally.served)[: size.windows]
    return load.tally, keys, ends


def run(size: Size) -> tuple[dict[str, object], list[str]]:
    """Figures, and the promises that were broken."""
    allowance = f"{size.calls}/{size.seconds}"
    with cluster(
        size.replicas,
        lifetime_seconds=3600,
        provider_timeout_seconds=5,
        settings={"IGNITION_API_ALLOWANCE": allowance},
        profile="ignitionapp",
    ) as running:
        tally, keys, ends = asyncio.run(play(running, size))
        throttled = running.counters()["api_rate_limited"]
        errors = running.errors_logged()
    windows = figures(tally, keys, size.calls, ends)
    broken = list(errors) + [f"answers {tally.odd}"] * bool(tally.odd)
    if len(windows) < size.windows:
        broken.append(f"only {len(windows)} windows")
    for number, window in enumerate(windows):
        if window.used < LEAST_USED:
            broken.append(f"window {number}: {window.used:.1%} used")
        if window.least_share < LEAST_SHARE and not size.others:
            broken.append(f"window {number}: {window.least_key} got {window.least_share:.0%}")
        if window.throttled > (MOST_THROTTLED if size.others else 0):
            broken.append(f"window {number}: {window.throttled} answers of 429")
    if throttled and not size.others:
        broken.append(f"the provider answered {throttled} times with 429")
    seen = {
        "size": asdict(size),
        "windows": [asdict(window) for window in windows],
        "throttled_by_provider": throttled,
        "refused_by_broker": tally.refused.total(),
        "unreachable": tally.unreachable,
    }
    return seen, broken


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--others", type=int, default=0)
    asked = parser.parse_args()
    seen, broken = run(Size(asked.calls, asked.seconds, asked.windows, others=asked.others))
    print(json.dumps(seen, indent=2))
    for line in broken:
        print(line, file=sys.stderr)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
