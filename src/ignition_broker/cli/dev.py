"""`dev`: everything on one machine, without any settings."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from cryptography.fernet import Fernet

from ignition_broker.broker.callers.api_keys import create_api_key, new_api_key, revoke_api_key
from ignition_broker.broker.errors import NotFound
from ignition_broker.broker.grants.connect_links import create_link
from ignition_broker.cli.fake_ignition import refuse_taken
from ignition_broker.clock import SystemClock
from ignition_broker.embedded import EmbeddedPostgres, EmbeddedPostgresError
from ignition_broker.fake_ignition import FakeIgnitionOptions, create_fake_ignition, options_for
from ignition_broker.model import Actor
from ignition_broker.server.graceful_stop import StoppingServer, StopTimes
from ignition_broker.server.http_protocol import ProxyHttpProtocol
from ignition_broker.settings import Settings
from ignition_broker.storage import schema
from ignition_broker.storage.database import Database
from ignition_broker.storage.makers import OPERATOR
from ignition_broker.telemetry import configure_logging

FOLDER = Path(".ignition-broker")
TENANT = "demo"
ACTOR = Actor("dev")
GRACE_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Secrets:
    """Generated at the first start and kept, so that a second start can decrypt what the first
    stored."""

    encryption_key: str
    admin_key: str
    client_secret: str


def dev(
    port: Annotated[int, typer.Option(min=1, max=65534, help="The broker's port.")] = 3000,
    reset: Annotated[bool, typer.Option("--reset", help="Start with empty data.")] = False,
) -> None:
    """Run Postgres, a fake Ignition and the broker on this machine, for a trial."""
    configure_logging("WARNING", "auto")
    refuse_taken(port)
    if reset:
        _reset()
    FOLDER.mkdir(mode=0o755, exist_ok=True)
    with EmbeddedPostgres(FOLDER / "postgres") as postgres:
        kept = _secrets()
        with contextlib.suppress(EmbeddedPostgresError):
            postgres.create_database("broker")
        url = postgres.url("broker")
        schema.migrate(url)
        asyncio.run(_run(port, url, kept))


async def _run(port: int, url: str, kept: Secrets) -> None:
    provider_port = _free_port()
    provider = f"http://localhost:{provider_port}"
    origin = f"http://localhost:{port}"
    options = options_for(
        "ignitionapp",
        client_secret=kept.client_secret,
        redirect_uris=(f"{origin}/callback",),
        state_path=FOLDER / "fake-ignition.journal",
    )
    # Here, since it takes longer to import than all other commands together.
    from ignition_broker.app import create_app

    settings = _settings(port, url, kept, provider, options)
    database = Database(url, pool_size=1)
    service_key = await _service_key(database)
    link = await create_link(database, TENANT, ACTOR, OPERATOR)
    await database.aclose()
    servers = [
        _Server(create_fake_ignition(options), provider_port),
        _Server(create_app(settings), port),
    ]
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    tasks = [asyncio.create_task(server.serve()) for server in servers]
    ended = asyncio.create_task(stop.wait())
    while not all(server.started for server in servers) and not any(t.done() for t in tasks):
        await SystemClock().sleep(0.01)
    if all(server.started for server in servers):
        typer.echo(_welcome(origin, provider, link.token, kept.admin_key, service_key))
    await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    for server in servers:
        server.should_exit = True
    await asyncio.gather(*tasks)
    typer.echo("\nstopped; the data stay in .ignition-broker/")


class _Server(StoppingServer):
    """One of two servers in this process, so neither installs signal handlers."""

    def __init__(self, app: object, port: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,  # type: ignore[arg-type]
                http=ProxyHttpProtocol,
                ws="none",
                host="127.0.0.1",
                port=port,
                log_config=None,
                access_log=False,
                server_header=False,
            ),
            StopTimes(drain_seconds=0, grace_seconds=GRACE_SECONDS),
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _settings(
    port: int, url: str, kept: Secrets, provider: str, options: FakeIgnitionOptions
) -> Settings:
    values = {
        "ignition_client_id": options.client_id,
        "ignition_client_secret": options.client_secret,
        "broker_drain_seconds": 0,
        "broker_grace_seconds": GRACE_SECONDS,
        "redirect_uri": f"http://localhost:{port}/callback",
        "ignition_profile": options.profile,
        "ignition_authorize_url": f"{provider}{options.dialect.authorize}",
        "ignition_token_url": f"{provider}{options.dialect.token}",
        "ignition_revoke_url": f"{provider}{options.dialect.revoke}",
        "ignition_api_url": f"{provider}{options.dialect.api_base}",
        "ignition_scopes": options.default_scope,
        "database_url": url,
        "broker_encryption_keys": kept.encryption_key,
        "broker_admin_key": kept.admin_key,
        "broker_port": port,
        "broker_log_level": "WARNING",
        # A receiver on this machine can be tried.
        "broker_webhook_allow": "127.0.0.0/8,::1",
        # It reaches nothing but this machine, whatever proxy the shell names.
        "https_proxy": None,
        "http_proxy": None,
    }
    return Settings(_env_file=None, **values)  # type: ignore[call-arg, arg-type]


async def _service_key(database: Database) -> str:
    with contextlib.suppress(NotFound):
        await revoke_api_key(database, "dev-service", ACTOR)
    _api_key, key = await create_api_key(
        database,
        SystemClock(),
        name="dev-service",
        scopes=["token", "proxy"],
        tenants=["*"],
        expires_at=None,
        actor=ACTOR,
    )
    return key


def _secrets() -> Secrets:
    path = FOLDER / "secrets.json"
    if not path.exists():
        made = {
            "encryption_key": Fernet.generate_key().decode("ascii"),
            "admin_key": new_api_key(),
            "client_secret": secrets.token_urlsafe(24),
        }
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(made, file)
    return Secrets(**json.loads(path.read_text()))


def _reset() -> None:
    if FOLDER.exists():
        # It starts only if no other `dev` uses it.
        with EmbeddedPostgres(FOLDER / "postgres"):
            pass
        shutil.rmtree(FOLDER)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _welcome(origin: str, provider: str, link: str, admin_key: str, service_key: str) -> str:
    expire = f"curl -s -X POST {provider}/control/expire -d '{{}}'"
    clients = f"'{origin}/proxy/{TENANT}/reporting/clients?limit=2'"
    bearer = f"-H 'Authorization: Bearer {service_key}'"
    return f"""
ignition-broker is ready.

  console        {origin}/
  admin key      {admin_key}
  service key    {service_key}

1. Connect the tenant '{TENANT}' in a browser (the link works once):
   {origin}/connect/{link}

2. A token:
   curl -s {bearer} {origin}/token/{TENANT}

3. A page of the practice's clients through the proxy; meta.pagination.next_cursor
   in the answer leads on with &cursor=…, and -H 'Broker-Paginate: all' brings all pages
   curl -s {bearer} {clients}

4. The token expires early, and the proxy renews it:
   {expire} && curl -s {bearer} {clients}

Ctrl-C stops everything.
"""
