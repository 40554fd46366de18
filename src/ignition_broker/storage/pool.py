"""asyncpg's connection pool, with our bounds and our errors."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from ignition_broker.storage.connection import Driver, NamingConnection, Row
from ignition_broker.storage.errors import StorageUnavailable

CLOSE_TIMEOUT_SECONDS = 1.0
_BROKEN = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Pool:
    """At most ``size`` connections, opened by ``connect`` when needed and kept.

    A caller waits for at most ``patience_seconds`` until one is free, or opened. By default
    asyncpg's pool sends a RESET each time a connection comes back, a second round trip for every
    statement. Ours leave nothing behind, so it is left out.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[Driver]], *, size: int, patience_seconds: float
    ) -> None:
        self._connect = connect
        self._size = size
        self._patience_seconds = patience_seconds
        # Made at the first use, because it belongs to the event loop that runs then.
        self._pool: asyncpg.Pool[Row] | None = None
        self._is_outdated = False

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Driver]:
        """Raises `StorageUnavailable` if none becomes free in time, and what asyncpg raises."""
        pool = self._pool or await self._opened()
        if self._is_outdated:
            self._is_outdated = False
            await pool.expire_connections()
        driver = await self._acquired(pool)
        try:
            yield driver
        except BaseException as error:
            # After an error that Postgres answered, a connection is as good as before. After any
            # other, or a cancellation, its state is unknown.
            if isinstance(error, _BROKEN) or not isinstance(error, Exception):
                driver.terminate()
            raise
        finally:
            await pool.release(driver)

    async def aclose(self) -> None:
        """Closes all connections, also those still in use after `CLOSE_TIMEOUT_SECONDS`."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                    await pool.close()
            except (asyncpg.PostgresError, *_BROKEN):
                pool.terminate()

    def renew(self) -> None:
        """No connection that is open now is given out again."""
        self._is_outdated = True

    async def _opened(self) -> asyncpg.Pool[Row]:
        self._pool = asyncpg.create_pool(
            connect=self._connected,
            reset=_left_as_it_is,
            min_size=0,
            max_size=self._size,
            max_queries=sys.maxsize,
            max_inactive_connection_lifetime=0,
            connection_class=NamingConnection,
            record_class=Row,
        )
        return await self._pool

    async def _acquired(self, pool: asyncpg.Pool[Row]) -> Driver:
        try:
            async with asyncio.timeout(self._patience_seconds):
                return await pool.acquire()
        except TimeoutError:
            if pool.get_size() < self._size:
                raise
            raise StorageUnavailable("no database connection became free in time") from None

    async def _connected(self, *_arguments: Any, **_options: Any) -> Driver:
        return await self._connect()


async def close_quietly(driver: Driver) -> None:
    try:
        await driver.close(timeout=CLOSE_TIMEOUT_SECONDS)
    except (asyncpg.PostgresError, *_BROKEN):
        driver.terminate()


async def _left_as_it_is(_connection: Driver) -> None:
    pass
