"""`api-keys`: creates, lists, rotates and revokes API keys, at the database."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from ignition_broker.broker.callers.api_key_rotation import rotate_api_key
from ignition_broker.broker.callers.api_keys import create_api_key, list_api_keys, revoke_api_key
from ignition_broker.cli.database import CLI_ACTOR, with_database
from ignition_broker.cli.output import AsJson, print_json, print_table, time_text
from ignition_broker.clock import SystemClock
from ignition_broker.model import ApiKey
from ignition_broker.storage.database import Database

app = typer.Typer(help="API keys of internal services and admins.", no_args_is_help=True)

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@app.command()
def create(
    name: str,
    tenants: Annotated[str, typer.Option(help="Ids and patterns: 'acme,beta-*'.")] = "",
    scopes: Annotated[str, typer.Option(help="token, proxy, admin")] = "token,proxy",
    expires: Annotated[str | None, typer.Option(help="After how long: 90d, 12h.")] = None,
    paths: Annotated[
        str | None,
        typer.Option(
            help="What it may call through the proxy: 'GET /v1/*,POST /v1/proposals'; the method "
            "'*' is any. Needs --scopes proxy. Without it: everything."
        ),
    ] = None,
    allowance_weight: Annotated[
        int,
        typer.Option(help="Its share of a tenant's calls where they are short: 2 is double."),
    ] = 1,
    allowance_reserve: Annotated[
        int, typer.Option(help="So many of a tenant's calls are kept for it in each window.")
    ] = 0,
) -> None:
    """Create an API key and print it, once."""
    clock = SystemClock()
    expires_at = None if expires is None else clock.now() + _duration(expires)

    async def work(database: Database) -> str:
        _listed, api_key = await create_api_key(
            database,
            clock,
            name=name,
            scopes=_between_commas(scopes),
            tenants=_between_commas(tenants),
            expires_at=expires_at,
            paths=None if paths is None else _between_commas(paths),
            allowance_weight=allowance_weight,
            allowance_reserve=allowance_reserve,
            actor=CLI_ACTOR,
        )
        return api_key

    typer.echo(with_database(work))


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """Show every API key, never the key itself."""
    rows = with_database(list_api_keys)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    print_table(
        ("name", "scopes", "tenants", "paths", "expires", "state"),
        [
            (
                row.name,
                ",".join(row.scopes),
                ",".join(row.tenants),
                "all" if row.paths is None else ",".join(row.paths),
                time_text(row.expires_at, absent="never"),
                _state(row),
            )
            for row in rows
        ],
    )


@app.command()
def rotate(
    name: str,
    grace: Annotated[
        str, typer.Option(help="How long the old key still works: 24h, 7d; 0 ends it now.")
    ] = "24h",
    expires: Annotated[
        str | None,
        typer.Option(
            help="After how long the new key ends: 90d. Without it: when the old one would."
        ),
    ] = None,
) -> None:
    """Replace an API key and print the new one, once; the old one works for a while."""
    clock = SystemClock()
    grace_seconds = 0.0 if grace == "0" else _duration(grace).total_seconds()
    expires_at = None if expires is None else clock.now() + _duration(expires)

    async def work(database: Database) -> str:
        _listed, api_key = await rotate_api_key(
            database,
            clock,
            name,
            grace_seconds=grace_seconds,
            expires_at=expires_at,
            actor=CLI_ACTOR,
        )
        return api_key

    typer.echo(with_database(work))


@app.command()
def revoke(name: str) -> None:
    """Revoke an API key, on every replica at once."""
    with_database(lambda database: revoke_api_key(database, name, CLI_ACTOR))
    typer.echo(f"{name}: revoked")


def _state(row: ApiKey) -> str:
    if row.revoked_at:
        return "revoked"
    if row.previous_works_until:
        return f"live, the old one until {time_text(row.previous_works_until)}"
    return "live"


def _between_commas(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,5})([mhdw])", text)
    if match is None:
        raise typer.BadParameter("give a number and a unit, such as 90d, 12h or 30m")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
