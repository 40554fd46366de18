"""The connection pool, and the two ways in: a transaction, or one statement that is one."""

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
"""Shorter than `CONNECT_TIMEOUT_SECONDS`, for which callers wait for a connection of the pool: if
all connections wait for one locked row, they come free in time for callers who need another."""
MOST_MOVES = 10_000

# Does not wait for the disk: a notification that is lost with Postgres is sent anew.
NOTIFY = text("""
    SELECT set_config('synchronous_commit', 'off', true), pg_notify(:channel, :payload)
""")


class Database:
    """A pool on one Postgres. Raises the errors of `storage.errors` alone.

    ``url`` is an SQLAlchemy URL of the asyncpg driver; ``sslmode`` in its query is libpq's.
    """

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self._url, self._ssl_mode = without_ssl(make_url(url))
        self._pool = Pool(
            self._pooled,
            size=pool_size,
            patience_seconds=CONNECT_TIMEOUT_SECONDS,
        )
        # Beside the pool, so that a full pool does not keep a process from proving that it hears.
        self._speaker = Pool(self._connected, size=1, patience_seconds=CONNECT_TIMEOUT_SECONDS)
        self._sessions = Sessions(self._opened)
        self._moves_seen: set[tuple[str, str, bytes]] = set()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Connection]:
        """A transaction: committed at the end of the block, rolled back by an exception."""
        try:
            with self._translated():
                async with self._pool.connection() as driver, driver.transaction():
                    yield Connection(driver)
        except Misplaced as error:
            await self.record_move(error)
            raise

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """A transaction that reads the database as it was at its first statement."""
        with self._translated():
            async with (
                self._pool.connection() as driver,
                driver.transaction(isolation="repeatable_read", readonly=True),
            ):
                yield Connection(driver)

    async def once(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """``work`` is one statement that may be carried out twice: a broken connection is tried
        again on a new one, since after a restart of Postgres each pooled one fails once."""
        try:
            return await self.single(work)
        except (SchemaUnfit, SessionsNotKept):
            raise
        except StorageUnavailable:
            return await self.single(work)

    async def single(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """``work`` is one statement, a transaction of its own, tried once."""
        try:
            with self._translated():
                async with self._pool.connection() as driver:
                    return await work(Connection(driver))
        except Misplaced as error:
            await self.record_move(error)
            raise

    async def record_move(self, error: Misplaced) -> None:
        """An event of its own, once a process and ciphertext: what reads a moved one fails at every
        call, and the trail must not fill up with that."""
        move = (error.tenant, error.column, error.ciphertext[-16:])
        if move in self._moves_seen or len(self._moves_seen) >= MOST_MOVES:
            return
        self._moves_seen.add(move)
        with self._translated():
            async with self._pool.connection() as driver:
                await audit.append(Connection(driver), audit.move_event(error))

    async def schema_version(self) -> str | None:
        """The migration that the database stands at; None before the first."""
        exists = text("SELECT to_regclass('alembic_version') IS NOT NULL")
        if not await self.once(lambda connection: connection.scalar(exists)):
            return None
        statement = text("SELECT max(version_num) FROM alembic_version")
        return await self.once(lambda connection: connection.scalar(statement))

    async def own_connection(self, application_name: str) -> Driver:
        """A connection outside the pool, for LISTEN."""
        with self._translated():
            return await self._connected(application_name)

    async def notify(self, channel: str, payload: str) -> None:
        """Sends a notification on a connection that does nothing else."""
        with self._translated():
            async with self._speaker.connection() as driver:
                await Connection(driver).execute(NOTIFY, {"channel": channel, "payload": payload})

    def doubt_sessions(self) -> None:
        """Makes every connection anew, and none before it is proved that it keeps its session."""
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
        await self._pool.aclose()
        await self._speaker.aclose()

    async def _pooled(self) -> Driver:
        driver = await self._connected()
        # By a statement, since pgbouncer refuses it as a parameter of the start.
        await driver.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'")
        # What is written is text already; what is read is what the text says.
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
    """The URL, and its ``sslmode``.

    Hosted databases give URLs for libpq, whose words SQLAlchemy would hand to asyncpg as they are.
    """
    mode = url.query.get("sslmode") or url.query.get("ssl")
    rest = url.difference_update_query(["sslmode", "ssl", "channel_binding"])
    return rest, mode if isinstance(mode, str) else None
