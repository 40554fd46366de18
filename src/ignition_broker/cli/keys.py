"""`keys`: the Fernet keys that the tokens are stored under."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, TypeVar

import typer
from cryptography.fernet import Fernet
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ignition_broker.broker.encryption_keys.inventory import Holdings, holdings
from ignition_broker.broker.encryption_keys.rotation import Progress as RotationProgress
from ignition_broker.broker.encryption_keys.rotation import record
from ignition_broker.broker.encryption_keys.rotation import rotate as rotate_grants
from ignition_broker.cipher import Cipher
from ignition_broker.cli.database import going_on_by, open_database
from ignition_broker.clock import SystemClock
from ignition_broker.model import Actor
from ignition_broker.settings import RotationSettings, fernet_keys, load_settings
from ignition_broker.storage.database import Database

Result = TypeVar("Result")

app = typer.Typer(help="Encryption keys.", no_args_is_help=True)


@app.command()
def generate() -> None:
    """Print a new Fernet key."""
    typer.echo(Fernet.generate_key().decode("ascii"))


@app.command()
def rotate() -> None:
    """Re-encrypt every grant with the first key; may be stopped and run again."""

    last: RotationProgress | None = None

    async def run(database: Database, cipher: Cipher) -> None:
        nonlocal last
        began = time.monotonic()
        with _bar() as bar:
            task = bar.add_task("grants", total=None, speed=0.0)
            async for last in rotate_grants(database, cipher):
                speed = last.rotated / (time.monotonic() - began)
                bar.update(task, completed=last.seen, total=last.total, speed=speed)
        seconds = time.monotonic() - began
        await record(database, cipher, last, Actor("cli"), began_at=SystemClock().now())
        rotated = last.rotated if last else 0
        typer.echo(
            f"{rotated} grants re-encrypted with key {cipher.fingerprint}, "
            f"{rotated / seconds:.0f} a second"
        )
        if last and last.unreadable:
            named = ", ".join(last.named)
            typer.echo(
                f"grants that can't be read with these keys: {last.unreadable} ({named}); "
                "`keys status` names the keys that are missing",
                err=True,
            )
        if last and last.left:
            typer.echo(
                f"{last.left} grants were written meanwhile each time; run `keys rotate` again",
                err=True,
            )
        if last and (last.unreadable or last.left):
            raise typer.Exit(1)

    def how() -> str:
        return (
            f"{last.rotated if last else 0} grants were re-encrypted; run `keys rotate` again, "
            "which goes on where this ended"
        )

    with going_on_by(how):
        _with_database(run)


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """How many grants each key holds, by its fingerprint."""
    found = _with_database(holdings)
    if as_json:
        rows = [asdict(held) for held in found.keys]
        typer.echo(json.dumps({"keys": rows, "untried": found.untried}))
        return
    Console().print(_table(found))
    if found.untried:
        typer.echo(
            f"{found.untried} grants do not say which key holds them; `keys rotate` notes it"
        )


def _with_database(work: Callable[[Database, Cipher], Awaitable[Result]]) -> Result:
    settings = load_settings(RotationSettings)
    cipher = Cipher(fernet_keys(settings.broker_encryption_keys))
    database = open_database(settings.database_url.get_secret_value(), pool_size=2)

    async def run() -> Result:
        try:
            return await work(database, cipher)
        finally:
            await database.aclose()

    return asyncio.run(run())


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]:.0f}/s"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _table(found: Holdings) -> Table:
    table = Table("key", "configured", "grants")
    for held in found.keys:
        place = {None: "no", 1: "encrypts"}.get(held.place, "decrypts")
        table.add_row(held.fingerprint or "unknown", place, f"{held.grants}")
    return table
