"""The database as commands use it: they wait for a restart, and say how to go on where they end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import typer

from ignition_broker.clock import SystemClock
from ignition_broker.storage.errors import SchemaUnfit, SessionsNotKept, StorageUnavailable
from ignition_broker.storage.restart_waits import PATIENCE_SECONDS, PatientDatabase


def open_database(url: str, *, pool_size: int) -> PatientDatabase:
    def on_wait(reason: str) -> None:
        typer.echo(
            f"the database is away ({reason}); waiting for it, {PATIENCE_SECONDS:g} s at most",
            err=True,
        )

    return PatientDatabase(
        url,
        SystemClock(),
        pool_size=pool_size,
        on_wait=on_wait,
        patience_seconds=PATIENCE_SECONDS,
    )


@contextlib.contextmanager
def going_on_by(how: Callable[[], str]) -> Iterator[None]:
    """Where the database stays away, ends the command with a line that says ``how`` to go on."""
    try:
        yield
    except (SchemaUnfit, SessionsNotKept):
        raise
    except StorageUnavailable as error:
        typer.echo(f"the database can't be used: {error}; {how()}", err=True)
        raise typer.Exit(1) from None
