"""`tenants`: what the admin API does, at the database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from ignition_broker.broker.admins.makers import ANY_SETTINGS
from ignition_broker.broker.errors import NotYetAnswered
from ignition_broker.broker.grants.connect import disconnect
from ignition_broker.broker.grants.connect_links import create_link, list_links, revoke_link
from ignition_broker.broker.grants.tenants import list_tenants, show_tenant
from ignition_broker.cli.api_keys import ACTOR, with_database
from ignition_broker.clock import SystemClock
from ignition_broker.model import IssuedToken, TenantSummary, is_tenant_id
from ignition_broker.settings import DatabaseSettings, Settings, load_settings
from ignition_broker.storage.connect_links import ListedLink
from ignition_broker.storage.makers import OPERATOR
from ignition_broker.telemetry import Metrics
from ignition_broker.wiring import Parts, assemble

app = typer.Typer(help="Tenants and their grants.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json")]
MANY = 1_000_000
Result = TypeVar("Result")


def _tenant_id(text: str) -> str:
    if not is_tenant_id(text):
        raise typer.BadParameter(
            "a tenant id has 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or "
            "digit"
        )
    return text


TenantId = Annotated[str, typer.Argument(callback=_tenant_id)]


def with_parts(work: Callable[[Parts], Awaitable[Result]]) -> Result:
    settings = load_settings(Settings)

    async def run() -> Result:
        parts = assemble(settings, SystemClock(), Metrics())
        try:
            return await work(parts)
        finally:
            # What Ignition still answers is the grant's only good refresh token.
            await parts.refresher.end(parts.refresher.longest_seconds)
            await parts.endpoints.aclose()
            await parts.database.aclose()

    return asyncio.run(run())


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """Show every tenant with its status."""
    rows = with_database(lambda database: list_tenants(database, limit=MANY))
    if as_json:
        typer.echo(json.dumps([_fields(row) for row in rows], indent=2))
        return
    table = Table("tenant", "status", "expires", "scope", "last error")
    for row in rows:
        table.add_row(
            row.tenant,
            row.status.value,
            f"{row.expires_at:%Y-%m-%d %H:%M:%S}" if row.expires_at else "",
            row.scope or "",
            row.last_error or "",
        )
    Console().print(table)


@app.command()
def show(tenant: TenantId, as_json: AsJson = False) -> None:
    """Show one tenant."""
    fields = _fields(with_database(lambda database: show_tenant(database, tenant)))
    if as_json:
        typer.echo(json.dumps(fields, indent=2))
        return
    for name, value in fields.items():
        typer.echo(f"{name}: {'' if value is None else value}")


@app.command("connect-link")
def connect_link(tenant: TenantId) -> None:
    """Print a link that connects the tenant, once; makes the tenant if it is new."""
    origin = load_settings(DatabaseSettings).public_origin
    link = with_database(lambda database: create_link(database, tenant, ACTOR, OPERATOR))
    typer.echo(f"{origin}/connect/{link.token}")


@app.command()
def links(tenant: TenantId, as_json: AsJson = False) -> None:
    """Show the tenant's connect links: those that work, and those that were used."""
    rows = with_database(lambda database: list_links(database, tenant, ANY_SETTINGS))
    if as_json:
        typer.echo(json.dumps([_fields(row) for row in rows], indent=2))
        return
    table = Table("id", "expires", "created by", "used")
    for row in rows:
        used = f"{row.used_at:%Y-%m-%d %H:%M:%S}" if row.used_at else ""
        table.add_row(row.id, f"{row.expires_at:%Y-%m-%d %H:%M:%S}", row.created_by, used)
    Console().print(table)


@app.command("revoke-link")
def revoke_connect_link(
    tenant: TenantId,
    link: Annotated[str, typer.Argument(help="Its id, as `tenants links` shows it.")],
) -> None:
    """Take a connect link out of use, and end the sign-in that it began."""
    with_database(lambda database: revoke_link(database, tenant, link, ACTOR))
    typer.echo(f"{tenant}: link {link} revoked")


@app.command()
def refresh(tenant: TenantId) -> None:
    """Renew the tenant's token now."""
    token = with_parts(lambda parts: _renewed(parts, tenant))
    typer.echo(f"{tenant}: renewed, expires {token.expires_at:%Y-%m-%d %H:%M:%S UTC}")


@app.command("disconnect")
def disconnect_tenant(tenant: TenantId) -> None:
    """Revoke the grant at Ignition and forget its tokens."""
    revoked = with_parts(
        lambda parts: disconnect(parts.database, parts.cipher, parts.revocations, tenant, ACTOR)
    )
    said = {True: "revoked at Ignition", False: "Ignition did not confirm the revocation yet"}
    typer.echo(f"{tenant}: disconnected" + (f", {said[revoked]}" if revoked is not None else ""))


async def _renewed(parts: Parts, tenant: str) -> IssuedToken:
    """However late Ignition answers, as long as this process is the one that asked."""
    _grant, old = await parts.refresher.read(tenant)
    try:
        return await parts.issuer.renew_anyway(tenant, ACTOR)
    except NotYetAnswered as error:
        typer.echo(f"{error.detail} Waiting on…", err=True)
        await parts.refresher.end(parts.refresher.longest_seconds)
        _grant, token = await parts.refresher.read(tenant)
        if token.version == old.version:
            raise
        return token


def _fields(row: TenantSummary | ListedLink) -> dict[str, object]:
    return {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in asdict(row).items()
    }
