"""The fault run: `make chaos`. Four replicas, one Postgres, a strict provider, and no mercy.

    python -m tests.chaos.run --seconds 600 --seed 1

Prints its figures as JSON and ends with 1 where a promise was broken; the same seed begins the
same faults again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from cryptography.fernet import Fernet

from ignition_broker.embedded import EmbeddedPostgres
from ignition_broker.storage import schema
from tests.chaos.callers import Callers
from tests.chaos.faults import PROVIDER_TIMEOUT_SECONDS, Faults
from tests.chaos.verdict import judge
from tests.conftest import Broker, free_port, wait_until

REPLICAS = 4


def start_fake(folder: Path, redirect_uri: str, lifetime: int) -> tuple[subprocess.Popen, str]:
    port = free_port()
    log = (folder / "fake.log").open("wb")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ignition_broker",
            "fake-ignition",
            f"--port={port}",
            f"--lifetime={lifetime}",
            f"--redirect-uri={redirect_uri}",
        ],
        cwd=folder,
        stdout=log,
        stderr=log,
    )
    url = f"http://localhost:{port}"
    wait_until(lambda: httpx.get(f"{url}/healthz").is_success, what="the fake Ignition")
    return process, url


def make_replicas(folder: Path, fake_url: str, database_url: str, ports: list[int]) -> list[Broker]:
    admin_key = secrets.token_urlsafe(32)
    shared = {
        "IGNITION_CLIENT_ID": "demo-client",
        "IGNITION_CLIENT_SECRET": "demo-secret",
        "REDIRECT_URI": f"http://localhost:{ports[0]}/callback",
        "IGNITION_AUTHORIZE_URL": f"{fake_url}/oauth/authorize",
        "IGNITION_TOKEN_URL": f"{fake_url}/oauth/token",
        "IGNITION_API_URL": fake_url,
        "DATABASE_URL": database_url,
        "BROKER_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
        "BROKER_ADMIN_KEY": admin_key,
        "BROKER_LOG_FORMAT": "json",
        "BROKER_PROVIDER_TIMEOUT": str(PROVIDER_TIMEOUT_SECONDS),
    }
    return [Broker({**shared, "BROKER_PORT": str(port)}, port, admin_key, folder) for port in ports]


def connect(broker: Broker, tenant: str) -> None:
    with broker.client() as admin, httpx.Client(timeout=10) as browser:
        link = admin.post(f"/admin/tenants/{tenant}/connect-link").json()["url"]
        url = browser.post(link).headers["location"]
        callback = browser.get(url + "&auto=1").headers["location"]
        assert browser.get(callback).status_code == 200


def read_ledger(fake_url: str) -> list[dict]:
    return httpx.get(f"{fake_url}/control/ledger", timeout=60).json()["grants"]


async def mend(callers: Callers, replicas: list[Broker], until: float) -> None:
    """Connects again what was lost, so that the run goes on with every tenant."""
    while time.time() < until:
        for tenant in list(callers.lost_tenants):
            try:
                await asyncio.to_thread(connect, replicas[0], tenant)
            except (httpx.HTTPError, AssertionError, KeyError, ValueError):
                continue
            callers.lost_tenants.discard(tenant)
        await asyncio.sleep(0.5)


async def chaos(seed: int, seconds: float, tenants: int, concurrency: int, lifetime: int) -> dict:
    with tempfile.TemporaryDirectory(prefix="ib-chaos-") as name:
        folder = Path(name)
        os.chmod(folder, 0o755)
        ports = [free_port() for _ in range(REPLICAS)]
        fake, fake_url = start_fake(folder, f"http://localhost:{ports[0]}/callback", lifetime)
        replicas: list[Broker] = []
        try:
            with EmbeddedPostgres(folder / "postgres", fsync=False) as postgres:
                postgres.create_database("broker")
                url = postgres.url("broker")
                await asyncio.to_thread(schema.migrate, url)
                replicas = make_replicas(folder, fake_url, url, ports)
                for replica in replicas:
                    replica.start()
                names = [f"tenant-{number}" for number in range(tenants)]
                for tenant in names:
                    await asyncio.to_thread(connect, replicas[0], tenant)
                key = replicas[0].make_key("chaos", ["token"], ["*"])
                faults = Faults(seed, replicas, postgres, fake_url, url)
                callers = Callers(
                    seed, [replica.url for replica in replicas], key, names, lifetime, faults
                )
                until = time.time() + seconds
                await asyncio.gather(
                    faults.run(until - 10),
                    callers.run(concurrency, until),
                    mend(callers, replicas, until),
                )
                ledger = await asyncio.to_thread(read_ledger, fake_url)
        finally:
            for replica in replicas:
                if replica.process is not None and replica.process.poll() is None:
                    replica.process.send_signal(signal.SIGCONT)
                    replica.stop(signal.SIGKILL)
            fake.terminate()
            fake.wait(10)
        verdict = judge(ledger, faults)
        recoveries = callers.recoveries or [0.0]
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
            "recovery_seconds": {
                "median": round(statistics.median(recoveries), 2),
                "max": round(max(recoveries), 2),
            },
        }


def is_kept(figures: dict) -> bool:
    """Whether every promise was."""
    return not any(
        figures[name]
        for name in (
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
    figures = asyncio.run(
        chaos(given.seed, given.seconds, given.tenants, given.callers, given.lifetime)
    )
    print(json.dumps(figures, indent=2))
    sys.exit(0 if is_kept(figures) else 1)


if __name__ == "__main__":
    main()
