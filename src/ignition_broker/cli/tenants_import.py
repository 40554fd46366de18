"""`tenants import`: takes over the grants of the integrations that the broker replaces."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ignition_broker.broker.moving.files import read_rows
from ignition_broker.broker.moving.importing import (
    Judged,
    TenantsConnected,
    Verdict,
    counted,
    import_rows,
)
from ignition_broker.broker.moving.rows import ImportRow
from ignition_broker.broker.moving.sealed_file import (
    KeyRefused,
    SealedFileRefused,
    is_sealed,
    opened,
    private_key,
)
from ignition_broker.broker.moving.verifying import verify
from ignition_broker.cipher import Cipher
from ignition_broker.cli.database import CLI_ACTOR, resuming_by, with_database
from ignition_broker.cli.output import FAILED, print_notice
from ignition_broker.cli.tenants import with_parts
from ignition_broker.clock import SystemClock
from ignition_broker.grant_ids import DEFAULT_CLIENT, client_of, tenant_of
from ignition_broker.settings import ImportSettings, fernet_keys, load_settings
from ignition_broker.storage.database import Database
from ignition_broker.wiring import Parts

MOST_LINES = 20


def import_tenants(
    file: Annotated[str, typer.Argument(help="CSV or JSON lines; -: standard input.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file and say what would be done.")
    ] = False,
    skip_connected: Annotated[
        bool, typer.Option("--skip-connected", help="Leave connected tenants as they are.")
    ] = False,
    key: Annotated[
        Path | None,
        typer.Option(help="Of a file of `tenants export`: the file that `export-key` wrote."),
    ] = None,
    verify_each: Annotated[
        bool, typer.Option("--verify", help="Refresh each once afterwards, slowly.")
    ] = False,
    pause: Annotated[
        float, typer.Option(min=0, max=3600, help="Seconds between two such refreshes.")
    ] = 1.0,
) -> None:
    """Take over refresh tokens from a file: all of its rows, or none."""
    settings = load_settings(ImportSettings)
    clock = SystemClock()
    content = _in_clear(file, _content(file), key)
    reading = read_rows(content, now=clock.now(), clients=settings.client_names)
    if reading.faults:
        _refuse(file, reading.faults)
    cipher = Cipher(fernet_keys(settings.broker_encryption_keys))

    async def work(database: Database) -> list[Judged]:
        with _bar() as bar:
            task = bar.add_task("tenants", total=len(reading.rows))
            return await import_rows(
                database,
                cipher,
                reading.rows,
                CLI_ACTOR,
                now=clock.now(),
                lead_seconds=settings.broker_refresh_lead,
                skips_connected=skip_connected,
                is_trial=dry_run,
                on_progress=lambda done: bar.update(task, completed=done),
            )

    try:
        with resuming_by(lambda: "run the same command again, which stores all rows or none"):
            judged = with_database(work, settings)
    except TenantsConnected as error:
        _refuse(file, [(each.row.line, str(each.verdict)) for each in error.judged])
    for each in sorted(judged, key=lambda each: each.row.line):
        typer.echo(f"{each.row.line}: {_named(each.row)}: {each.verdict}")
    sums = ", ".join(f"{count} {verdict}" for verdict, count in counted(judged).items())
    print_notice(f"{sums}{' (a dry run: nothing was stored)' if dry_run else ''}")
    ending = sum(not each.row.is_renewable for each in judged)
    if ending:
        print_notice(f"{ending} have no refresh token: they end with their access token")
    if not dry_run:
        print_notice(
            "Stop what used these refresh tokens before: where Ignition rotates them, two users "
            "of one end each other's"
        )
    if verify_each and not dry_run:
        taken = [each.row for each in judged if each.verdict is not Verdict.SKIPPED]
        _verify(sorted(taken, key=lambda row: row.line), pause)


def _verify(rows: list[ImportRow], pause_seconds: float) -> None:
    """A line for each row as soon as it is known, since this may take hours."""

    async def work(parts: Parts) -> int:
        bad = 0
        async for each in verify(
            parts.database,
            parts.issuer,
            SystemClock(),
            rows,
            CLI_ACTOR,
            pause_seconds=pause_seconds,
        ):
            bad += not each.is_good
            typer.echo(f"{each.row.line}: {_named(each.row)}: {each.text}")
        return bad

    bad = with_parts(work)
    print_notice(f"{len(rows) - bad} verified, {bad} not")
    if bad:
        print_notice("run the same command again to try those that were not refreshed")
        raise typer.Exit(FAILED)


def _content(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    path = Path(file)
    try:
        if path.stat().st_mode & 0o077:
            print_notice(f"{file} can be read by others; it holds tokens: chmod 600, delete it")
        return path.read_bytes()
    except OSError as error:
        print_notice(f"{file}: {error.strerror}")
        raise typer.Exit(FAILED) from None


def _in_clear(file: str, content: bytes, key: Path | None) -> bytes:
    """What a file of `tenants export` holds; any other file as it is."""
    if key is None:
        if is_sealed(content):
            raise typer.BadParameter(f"{file} is encrypted; give --key, the private key's file")
        return content
    try:
        opening = private_key(key.read_text())
    except (OSError, UnicodeDecodeError):
        raise typer.BadParameter(f"--key: {key} can't be read") from None
    except KeyRefused as error:
        raise typer.BadParameter(f"--key: {key} {error}") from None
    try:
        return opened(content, opening)
    except SealedFileRefused as error:
        _refuse(file, [(error.line, str(error))])


def _refuse(file: str, faults: list[tuple[int, str]]) -> NoReturn:
    for line, text in sorted(faults)[:MOST_LINES]:
        print_notice(f"{file}:{line}: {text}" if line else f"{file}: {text}")
    more = len(faults) - MOST_LINES
    print_notice(f"nothing was stored{f'; {more} more such rows' if more > 0 else ''}")
    raise typer.Exit(FAILED)


def _named(row: ImportRow) -> str:
    client = client_of(row.grant)
    return tenant_of(row.grant) + ("" if client == DEFAULT_CLIENT else f" at {client}")


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
