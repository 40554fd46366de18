"""The fault run: `make chaos`. Four replicas, one Postgres, and a provider that detects reuse.

    python -m tests.chaos.run --seconds 600 --seed 1

Prints its figures as JSON and ends with 1 where a promise was broken; the same seed begins the
same faults again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from datetime import datetime

import httpx

from tests.chaos.callers import Callers, Outage
from tests.chaos.cluster import Cluster, cluster
from tests.chaos.faults import PROVIDER_TIMEOUT_SECONDS, Faults
from tests.chaos.verdict import judge, recoveries

REPLICAS = 4
QUIET_SECONDS = 10


async def mend(callers: Callers, running: Cluster, until: float) -> None:
    """Connects again what was lost, so that the run goes on with every tenant."""
    while time.time() < until:
        for tenant in list(callers.lost_tenants):
            try:
                await asyncio.to_thread(running.connect, tenant)
            except (httpx.HTTPError, AssertionError, KeyError, ValueError):
                continue
            callers.lost_tenants.discard(tenant)
        await asyncio.sleep(0.5)


async def chaos(
    running: Cluster, seed: int, seconds: float, tenants: int, concurrency: int, lifetime: int
) -> dict:
    names = [f"tenant-{number}" for number in range(tenants)]
    for tenant in names:
        await asyncio.to_thread(running.connect, tenant)
    key = running.replicas[0].make_key("chaos", ["token"], ["*"])
    faults = Faults(
        seed, running.replicas, running.postgres, running.fake_url, running.database_url
    )
    callers = Callers(seed, running.urls, key, names, lifetime, faults)
    until = time.time() + seconds
    await asyncio.gather(
        faults.run(until - QUIET_SECONDS),
        faults.watch(until),
        callers.run(concurrency, until),
        mend(callers, running, until),
    )
    verdict = judge(await asyncio.to_thread(running.ledger), faults)
    outages = [outage for outage in callers.outages if not outage.needed_an_admin]
    seconds_without = [outage.seconds for outage in outages] or [0.0]
    return {
        "seed": seed,
        "seconds": seconds,
        "faults": faults.counts,
        "answers": callers.answers,
        "by_status": callers.by_status,
        "refreshes": verdict.refreshes,
        "reuses_provoked": verdict.provoked_reuses,
        "reuses_unprovoked": verdict.reuses,
        "grants_lost_unprovoked": verdict.lost,
        "refused_while_a_live_token_existed": callers.wrongly_refused,
        "served_with_less_than_asked": callers.too_short,
        "tenants_without_a_token_seconds": {
            "times": len(outages),
            "besides_until_an_admin_connected_again": len(callers.outages) - len(outages),
            "median": round(statistics.median(seconds_without), 2),
            "max": round(max(seconds_without), 2),
        },
        "longest_outage": await asyncio.to_thread(longest_outage, running, outages, faults),
        "errors_logged": running.errors_logged(),
        "times_the_machine_was_too_slow": sum(w.kind == "slow" for w in faults.windows),
        "recovery_after_a_fault_seconds": recoveries(faults, outages),
    }


def longest_outage(running: Cluster, outages: list[Outage], faults: Faults) -> list[str]:
    """What happened in it, for whoever wants to shorten it."""
    if not outages:
        return []
    worst = max(outages, key=lambda outage: outage.seconds)
    told = [
        (window.began - worst.began, f"{window.kind} until {window.ended - worst.began:+.1f}")
        for window in faults.windows
        if window.began <= worst.ended and window.ended >= worst.began
    ]
    with running.replicas[0].client() as admin:
        trail = admin.get(f"/admin/audit?tenant={worst.tenant}&limit=1000").json()["events"]
    for event in trail:
        at = datetime.fromisoformat(event["at"]).timestamp()
        if worst.began - 10 <= at <= worst.ended + 1:
            what = f"{event['action']} {event['outcome']} {json.dumps(event['detail'])}"
            told.append((at - worst.began, what))
    return [f"{at:+.1f} {what}" for at, what in sorted(told)]


def run(
    seed: int, seconds: float, *, tenants: int = 50, callers: int = 64, lifetime: int = 6
) -> dict:
    """The whole run; ``lifetime``: how many seconds a token lives."""
    with cluster(
        REPLICAS, lifetime_seconds=lifetime, provider_timeout_seconds=PROVIDER_TIMEOUT_SECONDS
    ) as running:
        return asyncio.run(chaos(running, seed, seconds, tenants, callers, lifetime))


def is_kept(figures: dict) -> bool:
    """Whether every promise was."""
    return not any(
        figures[name]
        for name in (
            "errors_logged",
            "reuses_unprovoked",
            "grants_lost_unprovoked",
            "refused_while_a_live_token_existed",
            "served_with_less_than_asked",
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--tenants", type=int, default=50)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--lifetime", type=int, default=6, help="seconds a token lives")
    given = parser.parse_args()
    figures = run(
        given.seed,
        given.seconds,
        tenants=given.tenants,
        callers=given.callers,
        lifetime=given.lifetime,
    )
    print(json.dumps(figures, indent=2))
    sys.exit(0 if is_kept(figures) else 1)


if __name__ == "__main__":
    main()
