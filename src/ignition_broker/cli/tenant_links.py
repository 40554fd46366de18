"""`tenants`: connect links, at the database."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from ignition_broker.broker.admins.makers import ANY_SETTINGS
from ignition_broker.broker.grants.connect_links import create_link, list_links, revoke_link
from ignition_broker.cli.database import CLI_ACTOR, with_database
from ignition_broker.cli.output import AsJson, print_json, print_table, time_text
from ignition_broker.cli.tenant_arguments import Client, Labels, Name, TenantId, description
from ignition_broker.grant_ids import DEFAULT_CLIENT, grant_id
from ignition_broker.return_addresses import (
    ReturnAddressRefused,
    check_return_address,
    parse_origins,
)
from ignition_broker.settings import LinkSettings, load_settings
from ignition_broker.storage.makers import OPERATOR

app = typer.Typer()


@app.command("connect-link")
def connect_link(
    tenant: TenantId,
    client: Client = DEFAULT_CLIENT,
    name: Name = None,
    label: Labels = None,
    return_to: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where its pages lead back to, at one of BROKER_RETURN_ORIGINS.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print a one-time link that connects the tenant; creates the tenant if it is new."""
    settings = load_settings(LinkSettings)
    if client not in settings.client_names:
        raise typer.BadParameter(f"IGNITION_CLIENTS names no client {client!r}")
    if return_to is not None:
        try:
            check_return_address(return_to, parse_origins(settings.broker_return_origins))
        except ReturnAddressRefused as error:
            raise typer.BadParameter(f"--return-to: {error}") from None
    origin, grant = settings.public_origin, grant_id(tenant, client)
    described = description(name, label)
    link = with_database(
        lambda database: create_link(database, grant, CLI_ACTOR, OPERATOR, described, return_to)
    )
    typer.echo(f"{origin}/connect/{link.token}")


@app.command()
def links(tenant: TenantId, as_json: AsJson = False, client: Client = DEFAULT_CLIENT) -> None:
    """Show the tenant's connect links: those that work and those that were used."""
    grant = grant_id(tenant, client)
    rows = with_database(lambda database: list_links(database, grant, ANY_SETTINGS))
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
    client: Client = DEFAULT_CLIENT,
) -> None:
    """Revoke a connect link, and end the sign-in that was begun with it."""
    grant = grant_id(tenant, client)
    with_database(lambda database: revoke_link(database, grant, link, CLI_ACTOR))
    typer.echo(f"{tenant}: revoked link {link}")
