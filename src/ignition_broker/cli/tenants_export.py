"""`tenants export`: all grants, encrypted for another deployment, so that nobody is locked in."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TextIO

import typer
from joserfc.jwk import OKPKey

from ignition_broker.broker.moving.exporting import grants_to_move, note_export
from ignition_broker.broker.moving.sealed_file import (
    KeyRefused,
    SealedWriter,
    new_key_pair,
    public_key,
)
from ignition_broker.cipher import Cipher
from ignition_broker.cli.database import CLI_ACTOR, resuming_by, with_database
from ignition_broker.cli.output import FAILED, print_notice
from ignition_broker.settings import RotationSettings, fernet_keys, load_settings
from ignition_broker.storage.database import Database


def make_key(
    file: Annotated[Path, typer.Argument(help="Where the private key goes; must not exist.")],
) -> None:
    """Make a key pair for `export --to-key`: the private key in FILE, the public key printed."""
    private, public = new_key_pair()
    with _new_file(file) as out:
        out.write(private + "\n")
    typer.echo(public)
    print_notice(f"whoever has {file} can read what is exported to it; keep it where you import")


def export_tenants(
    to_key: Annotated[
        str,
        typer.Option(help="The public key, or a file with it: what `tenants export-key` printed."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write; must not exist. Default: standard output."),
    ] = None,
) -> None:
    """Write all connected grants, encrypted to a public key, for `tenants import --key`."""
    key = _public_key(to_key)
    settings = load_settings(RotationSettings)
    cipher = Cipher(fernet_keys(settings.broker_encryption_keys))
    writer = SealedWriter(key)

    async def work(database: Database, file: TextIO) -> None:
        file.write(writer.header() + "\n")
        async for fields in grants_to_move(database, cipher):
            file.write(writer.line(fields) + "\n")
        file.write(writer.end() + "\n")
        await note_export(database, CLI_ACTOR, count=writer.count, thumbprint=str(key.thumbprint()))

    target = contextlib.nullcontext(sys.stdout) if out is None else _new_file(out)
    with (
        # What standard output has by then has no last line, and is refused by an import.
        resuming_by(lambda: "the export is not whole; run the same command again"),
        target as file,
    ):
        with_database(lambda database: work(database, file), settings)
    print_notice(f"{writer.count} grants written{'' if out is None else f' to {out}'}")
    print_notice(
        "Stop this deployment before the other one serves them: where Ignition rotates refresh "
        "tokens, two users of one end each other's"
    )


def _public_key(text: str) -> OKPKey:
    if not text.lstrip().startswith("{"):
        try:
            text = Path(text).read_text()
        except (OSError, UnicodeDecodeError):
            raise typer.BadParameter(f"--to-key: the file {text} can't be read") from None
    try:
        return public_key(text)
    except KeyRefused as error:
        raise typer.BadParameter(f"--to-key: {error}") from None


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[TextIO]:
    """A file that others can't read, and that is there under its name only once it is whole."""
    if path.exists():
        raise typer.BadParameter(f"{path} exists; name another file, or delete it")
    partial = path.with_name(path.name + ".partial")
    try:
        # One that a killed export left may be open to others.
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w", encoding="ascii") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        print_notice(f"{path}: {error.strerror}")
        raise typer.Exit(FAILED) from None
