"""The connection pool, and the two ways in: a transaction, or one statement that is one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from ignition_broker.storage.errors import StorageUnavailable, translated

Result = TypeVar("Result")
Connection = AsyncConnection
"""What the layers above hand on, without knowing SQLAlchemy."""

CONNECT_TIMEOUT_SECONDS = 3.0
STATEMENT_TIMEOUT_SECONDS = 5.0


class Database:
    """A pool on one Postgres. Raises the errors of `storage.errors` alone.

    ``url`` is an SQLAlchemy URL of the asyncpg driver; ``sslmode`` in its query is libpq's.
    """

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self._url, ssl = without_ssl(make_url(url))
        self._ssl = ssl
        self._engine = create_async_engine(
            self._url,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=CONNECT_TIMEOUT_SECONDS,
            pool_use_lifo=True,
            # What an error shows goes to the log.
            hide_parameters=True,
            connect_args={
                "timeout": CONNECT_TIMEOUT_SECONDS,
                "command_timeout": STATEMENT_TIMEOUT_SECONDS,
                "server_settings": {"application_name": "ignition-broker"},
                "ssl": ssl,
            },
        )
        self._autocommit = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed at the end of the block, rolled back by an exception."""
        with translated():
            async with self._engine.begin() as connection:
                yield connection

    async def once(self, work: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """``work`` is one statement that may be carried out twice: a broken connection is tried
        again on a new one, since after a restart of Postgres each pooled one fails once."""
        try:
            return await self.single(work)
        except StorageUnavailable:
            return await self.single(work)

    async def single(self, work: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """``work`` is one statement, a transaction of its own, tried once."""
        with translated():
            async with self._autocommit.connect() as connection:
                return await work(connection)

    async def schema_version(self) -> str | None:
        """The migration that the database stands at; None before the first."""
        exists = text("SELECT to_regclass('alembic_version') IS NOT NULL")
        if not await self.once(lambda connection: connection.scalar(exists)):
            return None
        statement = text("SELECT version_num FROM alembic_version")
        return await self.once(lambda connection: connection.scalar(statement))

    async def own_connection(self, application_name: str) -> asyncpg.Connection[Any]:
        """A connection outside the pool, for LISTEN."""
        url = self._url.set(drivername="postgresql")
        with translated():
            return await asyncpg.connect(
                url.render_as_string(hide_password=False),
                timeout=CONNECT_TIMEOUT_SECONDS,
                command_timeout=STATEMENT_TIMEOUT_SECONDS,
                server_settings={"application_name": application_name},
                ssl=self._ssl,
            )

    async def aclose(self) -> None:
        await self._engine.dispose()


def without_ssl(url: URL) -> tuple[URL, str | None]:
    """The URL, and its ``sslmode`` as asyncpg takes it.

    Hosted databases give URLs for libpq, whose words SQLAlchemy would hand to asyncpg as they are.
    """
    mode = url.query.get("sslmode") or url.query.get("ssl")
    rest = url.difference_update_query(["sslmode", "ssl", "channel_binding"])
    return rest, mode if isinstance(mode, str) else None
