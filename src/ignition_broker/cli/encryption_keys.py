"""`keys`: the encryption keys (Fernet) that tokens are stored under."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict

import typer
from cryptography.fernet import Fernet
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ignition_broker.broker.encryption_keys.inventory import EncryptionKeyUse, take_inventory
from ignition_broker.broker.encryption_keys.rotation import (
    RotationProgress,
    record_rotation,
    rotate_grants,
    rotate_held_grants,
    rotate_revocations,
    rotate_webhooks,
)
from ignition_broker.cipher import Cipher
from ignition_broker.cli.database import CLI_ACTOR, Result, resuming_by, with_database
from ignition_broker.cli.output import FAILED, AsJson, print_json, print_notice, print_table
from ignition_broker.clock import SystemClock
from ignition_broker.settings import RotationSettings, fernet_keys, load_settings
from ignition_broker.storage.database import Database

app = typer.Typer(help="Encryption keys.", no_args_is_help=True)


@app.command()
def generate() -> None:
    """Print a new encryption key (Fernet)."""
    typer.echo(Fernet.generate_key().decode("ascii"))


@app.command()
def rotate() -> None:
    """Re-encrypt every token that is stored with the first key; may be stopped and run again."""

    last: RotationProgress | None = None

    async def work(database: Database, cipher: Cipher) -> None:
        nonlocal last
        began = time.monotonic()
        with _bar() as bar:
            task = bar.add_task("grants", total=None, speed=0.0)
            async for last in rotate_grants(database, cipher):
                speed = last.rotated / (time.monotonic() - began)
                bar.update(task, completed=last.seen, total=last.total, speed=speed)
        seconds = time.monotonic() - began
        await rotate_held_grants(database, cipher)
        await rotate_revocations(database, cipher)
        await rotate_webhooks(database, cipher)
        await record_rotation(database, cipher, last, CLI_ACTOR, began_at=SystemClock().now())
        rotated = last.rotated if last else 0
        typer.echo(
            f"{rotated} grants re-encrypted with key {cipher.fingerprint}, "
            f"{rotated / seconds:.0f} a second"
        )
        if last and last.unreadable:
            tenants = ", ".join(last.unreadable_tenants)
            print_notice(
                f"grants that can't be read with these keys: {last.unreadable} ({tenants}); "
                "`keys status` names the keys that are missing"
            )
        if last and last.left:
            print_notice(
                f"{last.left} grants were written meanwhile each time; run `keys rotate` again"
            )
        if last and (last.unreadable or last.left):
            raise typer.Exit(FAILED)

    def advice() -> str:
        return (
            f"{last.rotated if last else 0} grants were re-encrypted; run `keys rotate` again, "
            "which goes on where this ended"
        )

    with resuming_by(advice):
        _with_cipher(work)


@app.command()
def status(as_json: AsJson = False) -> None:
    """How many grants are stored under each encryption key, by its fingerprint."""
    inventory = _with_cipher(take_inventory)
    if as_json:
        print_json({"keys": [asdict(key) for key in inventory.keys], "untried": inventory.untried})
        return
    print_table(
        ("key", "configured", "grants"),
        [(key.fingerprint or "unknown", _place(key), f"{key.grants}") for key in inventory.keys],
    )
    if inventory.untried:
        typer.echo(
            f"{inventory.untried} grants do not say which key holds them; `keys rotate` notes it"
        )


def _with_cipher(work: Callable[[Database, Cipher], Awaitable[Result]]) -> Result:
    settings = load_settings(RotationSettings)
    cipher = Cipher(fernet_keys(settings.broker_encryption_keys))
    return with_database(lambda database: work(database, cipher), settings, pool_size=2)


def _place(key: EncryptionKeyUse) -> str:
    match key.place:
        case None:
            return "no"
        case 1:
            return "encrypts"
        case _:
            return "decrypts"


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]:.0f}/s"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
