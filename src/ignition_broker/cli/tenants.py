"""`tenants`: lists, connects, renews and disconnects tenants, at the database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from ignition_broker.broker.errors import NotYetAnswered
from ignition_broker.broker.grants.disconnect import disconnect
from ignition_broker.broker.grants.tenants import describe_tenant, list_tenants, show_tenant
from ignition_broker.cli import tenant_explain, tenant_links
from ignition_broker.cli.database import CLI_ACTOR, Result, with_database
from ignition_broker.cli.output import AsJson, print_json, print_notice, print_table, time_text
from ignition_broker.cli.tenant_arguments import (
    Client,
    Labels,
    Name,
    TenantId,
    checked_labels,
    description,
)
from ignition_broker.clock import SystemClock
from ignition_broker.grant_ids import (
    DEFAULT_CLIENT,
    grant_id,
)
from ignition_broker.model import IssuedToken
from ignition_broker.settings import Settings, load_settings
from ignition_broker.telemetry import Metrics
from ignition_broker.tenant_labels import parse_labels
from ignition_broker.wiring import Parts, assemble

app = typer.Typer(help="Tenants and their grants.", no_args_is_help=True)
app.add_typer(tenant_links.app)
app.add_typer(tenant_explain.app)

MOST_LISTED = 1_000_000


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
def list_all(
    label: Annotated[
        list[str] | None,
        typer.Option(
            callback=checked_labels,
            metavar="KEY=VALUE",
            help="Only tenants that have it; may be given more than once.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    client: Annotated[str | None, typer.Option(help="Only of this OAuth client.")] = None,
) -> None:
    """Show every tenant with its status; at several OAuth clients, a line for each."""
    labels = parse_labels(label or [], "--label")
    rows = with_database(
        lambda database: list_tenants(database, labels=labels, limit=MOST_LISTED, client=client)
    )
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    print_table(
        (
            "tenant",
            "client",
            "name",
            "labels",
            "account",
            "status",
            "expires",
            "scope",
            "last error",
        ),
        [
            (
                row.tenant,
                row.client,
                row.name or "",
                _shown(row.labels),
                "" if row.account is None else row.account.name or row.account.id,
                row.status.value,
                time_text(row.expires_at),
                row.scope or "",
                row.last_error or "",
            )
            for row in rows
        ],
    )


@app.command()
def show(tenant: TenantId, as_json: AsJson = False, client: Client = DEFAULT_CLIENT) -> None:
    """Show one tenant."""
    grant = grant_id(tenant, client)
    fields = asdict(with_database(lambda database: show_tenant(database, grant)))
    if as_json:
        print_json(fields)
        return
    for name, value in fields.items():
        typer.echo(f"{name}: {_shown(value)}")


@app.command("set")
def set_description(
    tenant: TenantId,
    name: Name = None,
    label: Labels = None,
    no_name: Annotated[bool, typer.Option("--no-name", help="Clear the name.")] = False,
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Clear the labels.")] = False,
) -> None:
    """Set the tenant's name and labels; what is not given stays as it is."""
    if no_name and name is not None:
        raise typer.BadParameter("give --name or --no-name, not both")
    if no_labels and label:
        raise typer.BadParameter("give --label or --no-labels, not both")
    if not (name is not None or label or no_name or no_labels):
        raise typer.BadParameter("give --name, --label, --no-name or --no-labels")
    described = description(name, label, sets_name=no_name, sets_labels=no_labels)
    with_database(lambda database: describe_tenant(database, tenant, described, CLI_ACTOR))
    typer.echo(f"{tenant}: set")


@app.command()
def refresh(tenant: TenantId, client: Client = DEFAULT_CLIENT) -> None:
    """Renew the tenant's token now."""
    token = with_parts(lambda parts: _renewed(parts, grant_id(tenant, client)))
    typer.echo(f"{tenant}: renewed, expires {token.expires_at:%Y-%m-%d %H:%M:%S UTC}")


@app.command("disconnect")
def disconnect_tenant(tenant: TenantId, client: Client = DEFAULT_CLIENT) -> None:
    """Revoke the grant at Ignition and forget its tokens."""
    grant = grant_id(tenant, client)
    revoked = with_parts(
        lambda parts: disconnect(
            parts.database,
            parts.cipher,
            parts.revocations,
            parts.held_grants,
            grant,
            CLI_ACTOR,
        )
    )
    outcomes = {
        True: ", revoked at Ignition",
        False: ", Ignition did not confirm the revocation yet",
        None: "",
    }
    typer.echo(f"{tenant}: disconnected{outcomes[revoked]}")


@app.command("confirm-account")
def confirm_account(
    tenant: TenantId,
    account: Annotated[
        str, typer.Argument(help="The id of the pending account, as `tenants show` has it.")
    ],
    client: Client = DEFAULT_CLIENT,
) -> None:
    """Connect the tenant to another account, which a reconnect brought."""
    with_parts(
        lambda parts: parts.held_grants.confirm(grant_id(tenant, client), account, CLI_ACTOR)
    )
    typer.echo(f"{tenant}: connected to account {account}")


@app.command("discard-account")
def discard_account(tenant: TenantId, client: Client = DEFAULT_CLIENT) -> None:
    """Forget the grant of another account, which a reconnect brought; the earlier one stays."""
    with_parts(lambda parts: parts.held_grants.discard(grant_id(tenant, client), CLI_ACTOR))
    typer.echo(f"{tenant}: the other account's grant is discarded")


async def _renewed(parts: Parts, grant: str) -> IssuedToken:
    """The renewed token, however late Ignition answers. Raises `NotYetAnswered` where another
    process asked Ignition."""
    parts.clients.of(grant)
    _row, old = await parts.refresher.read(grant)
    try:
        return await parts.issuer.renew_anyway(grant, CLI_ACTOR)
    except NotYetAnswered as error:
        print_notice(f"{error.detail} Waiting on…")
        await parts.refresher.end(parts.refresher.longest_seconds)
        _row, token = await parts.refresher.read(grant)
        if token.version == old.version:
            raise
        return token


def _shown(value: object) -> str:
    match value:
        case None:
            return ""
        case datetime():
            return value.isoformat()
        case {"id": str(account_id), "name": name, **more}:
            until = f", until {_shown(more['expires_at'])}" if "expires_at" in more else ""
            return f"{name or ''} ({account_id}{until})".strip()
        case dict():
            return ", ".join(f"{key}={text}" for key, text in value.items())
        case list() | tuple():
            return ", ".join(str(each) for each in value)
        case _:
            return str(value)
