"""`tenants`: lists, connects, renews and disconnects tenants, at the database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from ignition_broker.broker.admins.makers import ANY_SETTINGS
from ignition_broker.broker.errors import NotYetAnswered
from ignition_broker.broker.grants.connect_links import create_link, list_links, revoke_link
from ignition_broker.broker.grants.disconnect import disconnect
from ignition_broker.broker.grants.tenants import list_tenants, show_tenant
from ignition_broker.cli.database import CLI_ACTOR, Result, with_database
from ignition_broker.cli.output import AsJson, print_json, print_notice, print_table, time_text
from ignition_broker.clock import SystemClock
from ignition_broker.model import TENANT_ID_RULE, IssuedToken, is_tenant_id
from ignition_broker.settings import DatabaseSettings, Settings, load_settings
from ignition_broker.storage.makers import OPERATOR
from ignition_broker.telemetry import Metrics
from ignition_broker.wiring import Parts, assemble

app = typer.Typer(help="Tenants and their grants.", no_args_is_help=True)

MOST_LISTED = 1_000_000


def _tenant_id(text: str) -> str:
    if not is_tenant_id(text):
        raise typer.BadParameter(f"a tenant id has {TENANT_ID_RULE}")
    return text


TenantId = Annotated[str, typer.Argument(callback=_tenant_id)]


def with_parts(work: Callable[[Parts], Awaitable[Result]]) -> Result:
    """For a command that asks Ignition: runs ``work`` with what `serve` is made of."""
    settings = load_settings(Settings)

    async def run() -> Result:
        parts = assemble(settings, SystemClock(), Metrics())
        try:
            return await work(parts)
        finally:
            # An answer that is still to come may hold the only valid refresh token.
            await parts.refresher.end(parts.refresher.longest_seconds)
            await parts.endpoints.aclose()
            await parts.database.aclose()

    return asyncio.run(run())


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """Show every tenant with its status."""
    rows = with_database(lambda database: list_tenants(database, limit=MOST_LISTED))
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    print_table(
        ("tenant", "status", "expires", "scope", "last error"),
        [
            (
                row.tenant,
                row.status.value,
                time_text(row.expires_at),
                row.scope or "",
                row.last_error or "",
            )
            for row in rows
        ],
    )


@app.command()
def show(tenant: TenantId, as_json: AsJson = False) -> None:
    """Show one tenant."""
    fields = asdict(with_database(lambda database: show_tenant(database, tenant)))
    if as_json:
        print_json(fields)
        return
    for name, value in fields.items():
        typer.echo(f"{name}: {_shown(value)}")


@app.command("connect-link")
def connect_link(tenant: TenantId) -> None:
    """Print a one-time link that connects the tenant; creates the tenant if it is new."""
    origin = load_settings(DatabaseSettings).public_origin
    link = with_database(lambda database: create_link(database, tenant, CLI_ACTOR, OPERATOR))
    typer.echo(f"{origin}/connect/{link.token}")


@app.command()
def links(tenant: TenantId, as_json: AsJson = False) -> None:
    """Show the tenant's connect links: those that work and those that were used."""
    rows = with_database(lambda database: list_links(database, tenant, ANY_SETTINGS))
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    print_table(
        ("id", "expires", "created by", "used"),
        [
            (row.id, time_text(row.expires_at), row.created_by, time_text(row.used_at))
            for row in rows
        ],
    )


@app.command("revoke-link")
def revoke_connect_link(
    tenant: TenantId,
    link: Annotated[str, typer.Argument(help="Its id, as `tenants links` shows it.")],
) -> None:
    """Revoke a connect link, and end the sign-in that was begun with it."""
    with_database(lambda database: revoke_link(database, tenant, link, CLI_ACTOR))
    typer.echo(f"{tenant}: revoked link {link}")


@app.command()
def refresh(tenant: TenantId) -> None:
    """Renew the tenant's token now."""
    token = with_parts(lambda parts: _renewed(parts, tenant))
    typer.echo(f"{tenant}: renewed, expires {token.expires_at:%Y-%m-%d %H:%M:%S UTC}")


@app.command("disconnect")
def disconnect_tenant(tenant: TenantId) -> None:
    """Revoke the grant at Ignition and forget its tokens."""
    revoked = with_parts(
        lambda parts: disconnect(parts.database, parts.cipher, parts.revocations, tenant, CLI_ACTOR)
    )
    outcomes = {
        True: ", revoked at Ignition",
        False: ", Ignition did not confirm the revocation yet",
        None: "",
    }
    typer.echo(f"{tenant}: disconnected{outcomes[revoked]}")


async def _renewed(parts: Parts, tenant: str) -> IssuedToken:
    """The renewed token, however late Ignition answers. Raises `NotYetAnswered` where another
    process asked Ignition."""
    _grant, old = await parts.refresher.read(tenant)
    try:
        return await parts.issuer.renew_anyway(tenant, CLI_ACTOR)
    except NotYetAnswered as error:
        print_notice(f"{error.detail} Waiting on…")
        await parts.refresher.end(parts.refresher.longest_seconds)
        _grant, token = await parts.refresher.read(tenant)
        if token.version == old.version:
            raise
        return token


def _shown(value: object) -> str:
    if value is None:
        return ""
    return value.isoformat() if isinstance(value, datetime) else str(value)
