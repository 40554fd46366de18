"""A Postgres database: its connections, transactions and single statements."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import asyncpg
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url

from ignition_broker.cipher import Misplaced
from ignition_broker.storage import audit
from ignition_broker.storage.connection import Connection, Driver, NamingConnection, Row
from ignition_broker.storage.errors import (
    SchemaUnfit,
    SessionsNotKept,
    StorageUnavailable,
    translated,
)
from ignition_broker.storage.pool import Pool
from ignition_broker.storage.pooler import Sessions
from ignition_broker.storage.tls import ssl_argument

Result = TypeVar("Result")

CONNECT_TIMEOUT_SECONDS = 3.0
STATEMENT_TIMEOUT_SECONDS = 5.0
LOCK_TIMEOUT_SECONDS = 2.0
"""Shorter than `CONNECT_TIMEOUT_SECONDS`, which is how long callers wait for a connection of the
pool: if all connections wait for one locked row, they become free before those callers give up."""
MOST_MOVES = 10_000

# Without waiting for the disk: a notification that is lost in a crash is sent again anyway.
NOTIFY = text("""
    SELECT set_config('synchronous_commit', 'off', true), pg_notify(:channel, :payload)
""")


class Database:
    """A pool of connections to one database. Its methods raise the errors of `storage.errors`.

    ``url`` is an SQLAlchemy URL of the asyncpg driver, with libpq's ``sslmode`` in its query.
    ``pool_size`` is the largest number of connections.
    """

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self._url, self._ssl_mode = without_ssl(make_url(url))
        self._pool = Pool(
            self._pooled,
            size=pool_size,
            patience_seconds=CONNECT_TIMEOUT_SECONDS,
        )
        # Outside the pool, so that a process can prove that it hears though its pool is full.
        self._speaker = Pool(self._connected, size=1, patience_seconds=CONNECT_TIMEOUT_SECONDS)
        self._sessions = Sessions(self._opened)
        self._moves_seen: set[tuple[str, str, bytes]] = set()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Connection]:
        """A transaction, committed at the end of the block and rolled back by an exception."""
        try:
            with self._translated():
                async with self._pool.connection() as driver, driver.transaction():
                    yield Connection(driver)
        except Misplaced as error:
            await self.record_move(error)
            raise

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """A read-only transaction that sees the database as it was at its first statement."""
        with self._translated():
            async with (
                self._pool.connection() as driver,
                driver.transaction(isolation="repeatable_read", readonly=True),
            ):
                yield Connection(driver)

    async def once(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Executes one statement, which must be safe to execute twice.

        If the connection turns out to be broken, it is tried once more on another. After a restart
        of Postgres, every connection of the pool fails once.
        """
        try:
            return await self.single(work)
        except (SchemaUnfit, SessionsNotKept):
            raise
        except StorageUnavailable:
            return await self.single(work)

    async def single(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Executes one statement in a transaction of its own, once."""
        try:
            with self._translated():
                async with self._pool.connection() as driver:
                    return await work(Connection(driver))
        except Misplaced as error:
            await self.record_move(error)
            raise

    async def record_move(self, error: Misplaced) -> None:
        """Records that a ciphertext was found in the wrong row or column, once for each process and
        ciphertext: every read of it fails, which must not fill the audit trail."""
        move = (error.tenant, error.column, error.ciphertext[-16:])
        if move in self._moves_seen or len(self._moves_seen) >= MOST_MOVES:
            return
        self._moves_seen.add(move)
        with self._translated():
            async with self._pool.connection() as driver:
                await audit.append(Connection(driver), audit.move_event(error))

    async def schema_version(self) -> str | None:
        """The number of the last migration that was applied; None before the first."""
        exists = text("SELECT to_regclass('alembic_version') IS NOT NULL")
        if not await self.once(lambda connection: connection.scalar(exists)):
            return None
        statement = text("SELECT max(version_num) FROM alembic_version")
        return await self.once(lambda connection: connection.scalar(statement))

    async def own_connection(self, application_name: str) -> Driver:
        """Opens a connection outside the pool, for LISTEN. The caller closes it."""
        with self._translated():
            return await self._connected(application_name)

    async def notify(self, channel: str, payload: str) -> None:
        """Sends a notification, on a connection that is used for nothing else."""
        with self._translated():
            async with self._speaker.connection() as driver:
                await Connection(driver).execute(NOTIFY, {"channel": channel, "payload": payload})

    def doubt_sessions(self) -> None:
        """Replaces all connections, and checks first that new ones keep their sessions."""
        self._sessions.doubt()
        self._pool.renew()
        self._speaker.renew()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with translated():
                yield
        except SessionsNotKept:
            self.doubt_sessions()
            raise

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._pool.aclose()
        await self._speaker.aclose()

    async def _pooled(self) -> Driver:
        driver = await self._connected()
        # As a statement, because pgbouncer refuses it as a startup parameter.
        await driver.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'")
        # Writers hand in JSON text; readers get what it means.
        await driver.set_type_codec("jsonb", schema="pg_catalog", encoder=str, decoder=json.loads)
        return driver

    async def _connected(self, application_name: str = "ignition-broker") -> Driver:
        driver = await self._opened(application_name)
        try:
            await self._sessions.check(driver)
        except BaseException:
            driver.terminate()
            raise
        return driver

    async def _opened(self, application_name: str = "ignition-broker") -> Driver:
        url = self._url.set(drivername="postgresql")
        return await asyncpg.connect(
            url.render_as_string(hide_password=False),
            timeout=CONNECT_TIMEOUT_SECONDS,
            command_timeout=STATEMENT_TIMEOUT_SECONDS,
            server_settings={"application_name": application_name},
            ssl=ssl_argument(self._url, self._ssl_mode),
            record_class=Row,
            connection_class=NamingConnection,
        )


def without_ssl(url: URL) -> tuple[URL, str | None]:
    """Splits ``sslmode`` off a URL; returns the rest, and the mode or None.

    Hosted databases give libpq's URLs, whose parameters asyncpg would refuse.
    """
    mode = url.query.get("sslmode") or url.query.get("ssl")
    rest = url.difference_update_query(["sslmode", "ssl", "channel_binding"])
    return rest, mode if isinstance(mode, str) else None
