"""`api-keys`: made, listed, rotated and revoked at the database."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from ignition_broker.broker.callers import access, api_key_rotation
from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.cli.database import open_database
from ignition_broker.clock import SystemClock
from ignition_broker.model import Actor, ApiKey
from ignition_broker.settings import DatabaseSettings, load_settings
from ignition_broker.storage.database import Database
from ignition_broker.storage.restart_waits import PatientDatabase

app = typer.Typer(help="API keys of internal services and admins.", no_args_is_help=True)

ACTOR = Actor("cli")
Result = TypeVar("Result")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def with_database(work: Callable[[PatientDatabase], Awaitable[Result]]) -> Result:
    settings = load_settings(DatabaseSettings)

    async def run() -> Result:
        database = open_database(settings.database_url.get_secret_value(), pool_size=1)
        try:
            return await work(database)
        finally:
            await database.aclose()

    return asyncio.run(run())


@app.command()
def create(
    name: str,
    tenants: Annotated[str, typer.Option(help="Ids and patterns: 'acme,beta-*'.")] = "",
    scopes: Annotated[str, typer.Option(help="token, proxy, admin")] = "token,proxy",
    expires: Annotated[str | None, typer.Option(help="Such as 90d, 12h.")] = None,
    paths: Annotated[
        str | None,
        typer.Option(
            help="What it may call through the proxy: 'GET /v1/*,POST /v1/proposals'; the method "
            "'*' is any. Needs --scopes proxy. Without it: everything."
        ),
    ] = None,
) -> None:
    """Make a key and print it, once."""
    clock = SystemClock()
    expires_at = None if expires is None else clock.now() + _duration(expires)

    async def work(database: Database) -> str:
        _api_key, key = await access.create_key(
            database,
            clock,
            name=name,
            scopes=_listed(scopes),
            tenants=_listed(tenants),
            expires_at=expires_at,
            paths=None if paths is None else _listed(paths),
            actor=ACTOR,
        )
        return key

    try:
        typer.echo(with_database(work))
    except InvalidRequest as error:
        raise typer.BadParameter(error.detail) from None


@app.command("list")
def list_all(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Show every key, never the key itself."""
    rows = with_database(access.list_keys)
    if as_json:
        fields = [
            {
                "name": row.name,
                "scopes": row.scopes,
                "tenants": row.tenants,
                "created_at": row.created_at.isoformat(),
                "expires_at": row.expires_at and row.expires_at.isoformat(),
                "revoked_at": row.revoked_at and row.revoked_at.isoformat(),
                "last_used_at": row.last_used_at and row.last_used_at.isoformat(),
                "paths": row.paths,
                "previous_works_until": row.previous_works_until
                and row.previous_works_until.isoformat(),
            }
            for row in rows
        ]
        typer.echo(json.dumps(fields, indent=2))
        return
    table = Table("name", "scopes", "tenants", "paths", "expires", "state")
    for row in rows:
        table.add_row(
            row.name,
            ",".join(row.scopes),
            ",".join(row.tenants),
            "all" if row.paths is None else ",".join(row.paths),
            f"{row.expires_at:%Y-%m-%d %H:%M}" if row.expires_at else "never",
            _state(row),
        )
    Console().print(table)


@app.command()
def rotate(
    name: str,
    grace: Annotated[
        str, typer.Option(help="How long the key of before works yet: 24h, 7d; 0 ends it now.")
    ] = "24h",
    expires: Annotated[
        str | None, typer.Option(help="When the new key ends, such as 90d; else as before.")
    ] = None,
) -> None:
    """Make another key for the same name and print it, once; the old one works for a while."""
    clock = SystemClock()
    grace_seconds = 0.0 if grace == "0" else _duration(grace).total_seconds()
    expires_at = None if expires is None else clock.now() + _duration(expires)

    async def work(database: Database) -> str:
        _api_key, key = await api_key_rotation.rotate_key(
            database, clock, name, grace_seconds=grace_seconds, expires_at=expires_at, actor=ACTOR
        )
        return key

    try:
        typer.echo(with_database(work))
    except InvalidRequest as error:
        raise typer.BadParameter(error.detail) from None


@app.command()
def revoke(name: str) -> None:
    """Take a key out of use, on every replica at once."""
    with_database(lambda database: access.revoke_key(database, name, ACTOR))
    typer.echo(f"{name} revoked")


def _state(row: ApiKey) -> str:
    if row.revoked_at:
        return "revoked"
    if row.previous_works_until:
        return f"live, the one before until {row.previous_works_until:%Y-%m-%d %H:%M}"
    return "live"


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,5})([mhdw])", text)
    if match is None:
        raise typer.BadParameter("give a number and a unit, such as 90d, 12h or 30m")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
