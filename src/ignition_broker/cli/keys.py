"""`keys`: the Fernet keys that the tokens are stored under."""

from __future__ import annotations

import asyncio

import typer
from cryptography.fernet import Fernet
from rich.console import Console
from rich.progress import Progress

from ignition_broker.broker.rotate import rotate as rotate_grants
from ignition_broker.cipher import Cipher
from ignition_broker.settings import RotationSettings, fernet_keys, load_settings
from ignition_broker.storage.engine import Database

app = typer.Typer(help="Encryption keys.", no_args_is_help=True)


@app.command()
def generate() -> None:
    """Print a new Fernet key."""
    typer.echo(Fernet.generate_key().decode("ascii"))


@app.command()
def rotate() -> None:
    """Re-encrypt every grant with the first key; may be stopped and run again."""
    settings = load_settings(RotationSettings)
    cipher = Cipher(fernet_keys(settings.broker_encryption_keys))
    database = Database(settings.database_url.get_secret_value(), pool_size=2)

    async def run() -> int:
        try:
            with Progress(console=Console(stderr=True)) as progress:
                task = progress.add_task("grants", total=None)
                rotated = 0
                async for seen, changed, total in rotate_grants(database, cipher):
                    rotated = changed
                    progress.update(task, completed=seen, total=total)
                return rotated
        finally:
            await database.aclose()

    typer.echo(f"{asyncio.run(run())} grants re-encrypted")
