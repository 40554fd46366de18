"""What a benchmark stands on: a Postgres with grants in it, `serve` on one core, the rest on the
other."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import httpx
import psutil
from cryptography.fernet import Fernet

from benchmarks.processes import LOAD_CORE, PYTHON, SERVER_CORE, free_port, running
from ignition_broker.cipher import Cipher
from ignition_broker.embedded import EmbeddedPostgres
from ignition_broker.storage import schema

LIFETIME = timedelta(hours=10)
SCOPE = "read write"


@dataclass(frozen=True)
class Stand:
    folder: Path
    postgres: EmbeddedPostgres
    database_url: str
    encryption_key: str
    key: str
    """An API key that covers every tenant, for tokens and the proxy."""

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    @contextlib.contextmanager
    def broker(
        self, *, core: int = SERVER_CORE, port: int | None = None, **settings: str
    ) -> Iterator[Broker]:
        port = port or free_port()
        environment = {
            "PATH": os.environ["PATH"],
            "IGNITION_CLIENT_ID": "demo-client",
            "IGNITION_CLIENT_SECRET": "demo-secret",
            "REDIRECT_URI": f"http://localhost:{port}/callback",
            "DATABASE_URL": self.database_url,
            "BROKER_ENCRYPTION_KEYS": self.encryption_key,
            "BROKER_LOG_FORMAT": "json",
            "BROKER_DRAIN_SECONDS": "0",
            "BROKER_PORT": str(port),
            "BROKER_PROXY_TENANT_CONCURRENCY": "2000",
            **settings,
        }
        with running(
            [PYTHON, "-m", "ignition_broker", "serve"],
            core=core,
            port=port,
            folder=self.folder,
            environment=environment,
        ) as process:
            yield Broker(process, port)

    def store_grants(self, tenants: list[str], *, lives_for: timedelta = LIFETIME) -> None:
        """As if each had been connected just now, without the dance."""
        cipher = Cipher([self.encryption_key])
        now = datetime.now(UTC)
        rows = [
            (
                tenant,
                "connected",
                cipher.encrypt(tenant, "access_token", secrets.token_urlsafe(32)),
                cipher.encrypt(tenant, "refresh_token", secrets.token_urlsafe(32)),
                "Bearer",
                SCOPE,
                now + lives_for,
                now,
                now,
                1,
                now + lives_for,
                now,
            )
            for tenant in tenants
        ]
        columns = [
            "tenant_id",
            "status",
            "access_token",
            "refresh_token",
            "token_type",
            "scope",
            "expires_at",
            "issued_at",
            "connected_at",
            "version",
            "next_refresh_at",
            "used_at",
        ]

        async def store() -> None:
            connection = await asyncpg.connect(self.plain_url)
            try:
                await connection.copy_records_to_table(
                    "tenants", records=[(tenant,) for tenant in tenants], columns=["id"]
                )
                await connection.copy_records_to_table("grants", records=rows, columns=columns)
                await connection.execute("ANALYZE grants")
            finally:
                await connection.close()

        asyncio.run(store())

    def statement(self, sql: str) -> list[asyncpg.Record]:
        async def ask() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(self.plain_url)
            try:
                return list(await connection.fetch(sql))
            finally:
                await connection.close()

        return asyncio.run(ask())

    @property
    def plain_url(self) -> str:
        return self.database_url.replace("+asyncpg", "")


@dataclass(frozen=True)
class Broker:
    process: psutil.Process
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, headers: Mapping[str, str]) -> httpx.Response:
        answer = httpx.get(f"{self.url}{path}", headers=dict(headers), timeout=30)
        answer.raise_for_status()
        return answer


@contextlib.contextmanager
def _off_the_servers_core() -> Iterator[None]:
    """This process too, which asks Postgres and the servers how they are."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def stand() -> Iterator[Stand]:
    with _off_the_servers_core(), tempfile.TemporaryDirectory(prefix="ib-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with EmbeddedPostgres(folder / "postgres") as postgres:
            server = psutil.Process(postgres.pid)
            for each in [server, *server.children(recursive=True)]:
                each.cpu_affinity([LOAD_CORE])
            postgres.create_database("broker")
            url = postgres.url("broker")
            schema.migrate(url)
            key = "ibk_" + secrets.token_urlsafe(32)
            made = Stand(folder, postgres, url, Fernet.generate_key().decode(), key)
            digest = hashlib.sha256(key.encode()).hexdigest()
            made.statement(
                "INSERT INTO api_keys (name, key_hash, scopes, tenants) VALUES "
                f"('bench', decode('{digest}', 'hex'), '{{token,proxy}}', '{{*}}')"
            )
            made.store_grants(["acme"])
            yield made
