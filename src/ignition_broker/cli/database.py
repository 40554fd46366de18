"""The database as commands use it: they wait for its restart, and say how to go on if they fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeVar

import typer

from ignition_broker.cli.output import FAILED, print_notice
from ignition_broker.clock import SystemClock
from ignition_broker.model import Actor
from ignition_broker.settings import DatabaseSettings, load_settings
from ignition_broker.storage.errors import SchemaUnfit, SessionsNotKept, StorageUnavailable
from ignition_broker.storage.restart_waits import PATIENCE_SECONDS, PatientDatabase

CLI_ACTOR: Final = Actor("cli")
"""Whom the audit trail names for what a command changes."""

Result = TypeVar("Result")


def with_database(
    work: Callable[[PatientDatabase], Awaitable[Result]],
    settings: DatabaseSettings | None = None,
    *,
    pool_size: int = 1,
) -> Result:
    """Runs ``work`` to its end and closes the database.

    Args:
        settings: None: only what the database needs is read from the environment.
        pool_size: the most connections at once.

    Returns:
        What ``work`` returns.

    Raises:
        SettingsError: ``DATABASE_URL`` is missing or malformed.
    """
    url = (settings or load_settings(DatabaseSettings)).database_url.get_secret_value()

    async def run() -> Result:
        async with contextlib.aclosing(_patient_database(url, pool_size)) as database:
            return await work(database)

    return asyncio.run(run())


@contextlib.contextmanager
def resuming_by(advice: Callable[[], str]) -> Iterator[None]:
    """Where the database stays away, ends the command with a line that says how to go on.

    Args:
        advice: asked for the end of that line only when it is needed.
    """
    try:
        yield
    except (SchemaUnfit, SessionsNotKept):
        raise
    except StorageUnavailable as error:
        print_notice(f"the database can't be used: {error}; {advice()}")
        raise typer.Exit(FAILED) from None


def _patient_database(url: str, pool_size: int) -> PatientDatabase:
    def on_wait(reason: str) -> None:
        print_notice(
            f"the database is away ({reason}); waiting for it, {PATIENCE_SECONDS:g} s at most"
        )

    return PatientDatabase(
        url,
        SystemClock(),
        pool_size=pool_size,
        on_wait=on_wait,
        patience_seconds=PATIENCE_SECONDS,
    )
