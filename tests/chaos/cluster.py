"""Several replicas on one Postgres with a provider in a process of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from cryptography.fernet import Fernet

from ignition_broker.embedded import EmbeddedPostgres
from ignition_broker.fake_ignition.dialects import DIALECTS, Profile
from ignition_broker.storage import schema
from tests.conftest import Broker, free_port, wait_until

CONNECT_SECONDS = 20.0
"""How long a slow Ignition is waited for when a tenant is connected."""


@dataclass
class Cluster:
    replicas: list[Broker]
    postgres: EmbeddedPostgres
    database_url: str
    fake_url: str

    @property
    def urls(self) -> list[str]:
        return [replica.url for replica in self.replicas]

    def connect(self, tenant: str) -> None:
        """Connects a tenant; the fake Ignition approves by itself."""
        with self.replicas[0].client() as admin, httpx.Client(timeout=10) as browser:
            link = admin.post(f"/admin/tenants/{tenant}/connect-link").json()["url"]
            url = browser.post(link).headers["location"]
            callback = browser.get(url + "&auto=1").headers["location"]
            answer = browser.get(callback)
            ends_at = time.monotonic() + CONNECT_SECONDS
            while answer.status_code == 202 and time.monotonic() < ends_at:
                answer = browser.get(callback)
            assert answer.status_code == 200, answer.text

    def errors_logged(self) -> list[str]:
        """What no fault should bring a replica to log. That Ignition is away is one's effect."""
        lines = (line for replica in self.replicas for line in replica.log_text().splitlines())
        errors = (line[:4000] for line in lines if '"level": "error"' in line)
        return [line for line in errors if '"event": "condition_began"' not in line][:20]

    def control(self, verb: str, **body) -> None:
        httpx.post(f"{self.fake_url}/control/{verb}", json=body).raise_for_status()

    def counters(self) -> dict[str, int]:
        return httpx.get(f"{self.fake_url}/control/counters").json()

    def ledger(self) -> list[dict]:
        return httpx.get(f"{self.fake_url}/control/ledger", timeout=60).json()["grants"]


@contextlib.contextmanager
def cluster(
    replicas: int,
    *,
    lifetime_seconds: int,
    provider_timeout_seconds: float,
    settings: dict[str, str] | None = None,
    profile: Profile = "guide",
) -> Iterator[Cluster]:
    """``settings``: further ones of the replicas, or others. ``profile``: of the provider."""
    with tempfile.TemporaryDirectory(prefix="ib-cluster-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        os.chmod(folder, 0o755)
        ports = [free_port() for _ in range(replicas)]
        fake_url = stack.enter_context(_fake(folder, ports[0], lifetime_seconds, profile))
        postgres = stack.enter_context(EmbeddedPostgres(folder / "postgres", fsync=False))
        postgres.create_database("broker")
        url = postgres.url("broker")
        schema.migrate(url)
        brokers = _brokers(folder, fake_url, url, ports, provider_timeout_seconds)
        for broker in brokers:
            broker.settings.update(_addresses(fake_url, profile) | (settings or {}))
        stack.callback(_kill, brokers)
        for broker in brokers:
            broker.start()
        yield Cluster(brokers, postgres, url, fake_url)


@contextlib.contextmanager
def _fake(folder: Path, broker_port: int, lifetime_seconds: int, profile: Profile) -> Iterator[str]:
    port = free_port()
    arguments = [
        f"--port={port}",
        f"--lifetime={lifetime_seconds}",
        f"--profile={profile}",
        f"--redirect-uri=http://localhost:{broker_port}/callback",
    ]
    with (folder / "fake.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ignition_broker", "fake-ignition", *arguments],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    url = f"http://localhost:{port}"
    try:
        wait_until(lambda: httpx.get(f"{url}/healthz").is_success, what="the fake Ignition")
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _addresses(fake_url: str, profile: Profile) -> dict[str, str]:
    """Of a dialect of its own; the guide's are in every replica's settings."""
    if profile == "guide":
        return {}
    paths = DIALECTS[profile]
    return {
        "IGNITION_PROFILE": profile,
        "IGNITION_AUTHORIZE_URL": f"{fake_url}{paths.authorize}",
        "IGNITION_TOKEN_URL": f"{fake_url}{paths.token}",
        "IGNITION_REVOKE_URL": f"{fake_url}{paths.revoke}",
        "IGNITION_API_URL": f"{fake_url}{paths.api_base}",
    }


def _brokers(
    folder: Path, fake_url: str, database_url: str, ports: list[int], timeout_seconds: float
) -> list[Broker]:
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
        "BROKER_DRAIN_SECONDS": "0",
        "BROKER_PROVIDER_TIMEOUT": str(timeout_seconds),
    }
    return [
        Broker(
            {
                **shared,
                "BROKER_PORT": str(port),
                # The fake's ledger tells callers apart by it.
                "IGNITION_TOKEN_URL": f"{fake_url}/oauth/token?{query_of(number)}",
            },
            port,
            admin_key,
            folder,
        )
        for number, port in enumerate(ports)
    ]


def query_of(number: int) -> str:
    """The query of a replica's token URL, which is sent as it is (RFC 6749 section 3.2)."""
    return f"replica={number}"


def _kill(brokers: list[Broker]) -> None:
    for broker in brokers:
        if broker.process is not None and broker.process.poll() is None:
            broker.process.send_signal(signal.SIGCONT)
            broker.stop(signal.SIGKILL)
