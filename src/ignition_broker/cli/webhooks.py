"""`webhooks`: tries a destination by hand."""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated

import typer

from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.broker.notifications.destinations import Destination, Kind, parse_url
from ignition_broker.broker.notifications.endpoints import with_stored_secrets
from ignition_broker.broker.notifications.sending import NotTaken, SendResult, Taken
from ignition_broker.cipher import Cipher
from ignition_broker.cli.output import FAILED, print_notice
from ignition_broker.clock import SystemClock
from ignition_broker.outbound.egress import Egress
from ignition_broker.settings import Settings, fernet_keys, load_settings
from ignition_broker.storage.database import Database
from ignition_broker.storage.outbox import OutboxEvent
from ignition_broker.wiring_notifications import senders

app = typer.Typer(help="Destinations of notifications.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Destinations of notifications."""


@app.command("test")
def try_url(
    url: Annotated[str, typer.Argument(help="Of a webhook, or of Slack (slack+https://…).")],
) -> None:
    """Send a test event to a URL, once and at once, and say what came of it.

    It is signed with the secrets of the destination of that URL if there is one, else with
    BROKER_WEBHOOK_SECRET.
    """
    settings = load_settings(Settings)
    try:
        destination = parse_url(url)
    except ValueError as error:
        raise InvalidRequest(f"URL: {error}.") from None
    began = SystemClock().monotonic()
    match asyncio.run(_tried(settings, destination)):
        case Taken(status=status):
            took_ms = (SystemClock().monotonic() - began) * 1000
            typer.echo(f"{destination.shown}: taken, status {status}, {took_ms:.0f} ms")
        case NotTaken(reason=reason):
            print_notice(f"{destination.shown}: not taken: {reason}")
            raise typer.Exit(FAILED)


async def _tried(settings: Settings, destination: Destination) -> SendResult:
    clock = SystemClock()
    signed = await _with_secrets(settings, destination)
    egress = Egress(more_authorities=settings.broker_ca_file, proxies=settings.egress_proxies)
    sender = senders(settings, egress, clock)
    name = f"evt_{secrets.token_hex(16)}"
    event = OutboxEvent(name, clock.now(), "test", None, None, "test", None, None)
    try:
        return await sender.send(signed, [event])
    finally:
        await sender.aclose()


async def _with_secrets(settings: Settings, destination: Destination) -> Destination:
    """Raises `InvalidRequest` where nothing can sign what has to be signed."""
    if destination.kind is not Kind.WEBHOOK:
        return destination
    database = Database(settings.database_url.get_secret_value(), pool_size=1)
    cipher = Cipher(fernet_keys(settings.broker_encryption_keys))
    try:
        stored = await with_stored_secrets(database, cipher, destination)
    finally:
        await database.aclose()
    secrets_in_force = stored or tuple(settings.webhook_secrets)
    if not secrets_in_force:
        raise InvalidRequest(
            "URL: no destination has it, and BROKER_WEBHOOK_SECRET is not set to sign with."
        )
    return Destination(destination.kind, destination.target, secrets_in_force)
