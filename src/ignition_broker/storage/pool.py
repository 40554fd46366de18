"""Connections to Postgres: opened when they are needed, kept, and bounded in number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg

from ignition_broker.storage.connection import Driver
from ignition_broker.storage.errors import StorageUnavailable

CLOSE_TIMEOUT_SECONDS = 1.0
_BROKEN = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class Pool:
    """At most ``size`` connections; whoever finds none free waits for ``patience_seconds``.

    asyncpg's own pool sends a RESET each time that a connection comes back, a second round trip
    for every statement. Nothing here leaves anything behind on one.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[Driver]], *, size: int, patience_seconds: float
    ) -> None:
        self._connect = connect
        self._patience_seconds = patience_seconds
        self._free_places = asyncio.Semaphore(size)
        # The last one given back goes out first, so that those not needed stay out of the way.
        self._idle: list[Driver] = []
        self._is_closed = False
        self._generation = 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Driver]:
        """Raises `StorageUnavailable` where none becomes free, and what asyncpg raises."""
        await self._take_place()
        try:
            generation = self._generation
            driver = self._next_idle()
            if driver is None:
                driver = await self._connect()
            try:
                yield driver
            except BaseException as error:
                # What Postgres refuses leaves a connection as good as before. Nobody knows that of
                # one whose statement was given up.
                if isinstance(error, _BROKEN) or not isinstance(error, Exception):
                    driver.terminate()
                raise
            finally:
                self._keep(driver, generation)
        finally:
            self._free_places.release()

    async def aclose(self) -> None:
        """Those in use are closed as they come back."""
        self._is_closed = True
        while self._idle:
            await close_quietly(self._idle.pop())

    def renew(self) -> None:
        """Uses none of the connections again that there are now."""
        self._generation += 1
        while self._idle:
            self._idle.pop().terminate()

    async def _take_place(self) -> None:
        if not self._free_places.locked():
            await self._free_places.acquire()
            return
        try:
            async with asyncio.timeout(self._patience_seconds):
                await self._free_places.acquire()
        except TimeoutError:
            raise StorageUnavailable("no database connection became free in time") from None

    def _next_idle(self) -> Driver | None:
        while self._idle:
            driver = self._idle.pop()
            if not driver.is_closed():
                return driver
        return None

    def _keep(self, driver: Driver, generation: int) -> None:
        if self._is_closed or generation != self._generation:
            driver.terminate()
        elif not driver.is_closed():
            self._idle.append(driver)


async def close_quietly(driver: Driver) -> None:
    try:
        await driver.close(timeout=CLOSE_TIMEOUT_SECONDS)
    except (asyncpg.PostgresError, *_BROKEN):
        driver.terminate()
