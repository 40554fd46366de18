"""`serve` and `migrate`."""

from __future__ import annotations

import os
import resource
from typing import Annotated

import structlog
import typer
import uvicorn

from ignition_broker.cli.database import resuming_by
from ignition_broker.cli.encryption_key_check import check_encryption_keys
from ignition_broker.server.graceful_stop import StopTimes
from ignition_broker.server.http_protocol import ProxyHttpProtocol
from ignition_broker.server.listening import listen
from ignition_broker.settings import DatabaseSettings, Settings, load_settings
from ignition_broker.storage import schema
from ignition_broker.telemetry import configure_logging

log = structlog.get_logger(__name__)


def serve(
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the port.")] = 1,
) -> None:
    """Run the broker; SIGTERM lets running calls end."""
    settings = load_settings(Settings)
    configure_logging(
        settings.broker_log_level, settings.broker_log_format, secrets=settings.secrets()
    )
    # A core file would hold every token and key in plain text.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if settings.placeholders:
        log.warning(
            "placeholder_addresses_kept",
            settings=settings.placeholders,
            remedy="set IGNITION_PROFILE=ignitionapp, or these to your Ignition's addresses",
        )
    check_encryption_keys(settings)
    config = uvicorn.Config(
        "ignition_broker.app:application",
        factory=True,
        http=ProxyHttpProtocol,
        ws="none",
        host=settings.broker_host,
        port=settings.broker_port,
        workers=workers,
        # uvicorn turns it on by itself for loopback: any process on this machine could then name
        # its own address.
        proxy_headers=bool(settings.broker_trusted_proxies),
        forwarded_allow_ips=settings.broker_trusted_proxies,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
    )
    times = StopTimes(settings.broker_drain_seconds, settings.broker_grace_seconds)
    listen(config, times, settings.operations_address)


def migrate() -> None:
    """Bring the database to the newest schema."""
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    settings = load_settings(DatabaseSettings)
    with resuming_by(lambda: "what was begun was undone; run `migrate` again"):
        version = schema.migrate(settings.database_url.get_secret_value())
    typer.echo(f"the schema is at {version}")
