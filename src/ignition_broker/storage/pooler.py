"""Checks that a connection keeps its session, rather than sharing it through a pooler.

A pooler in transaction mode (pgbouncer's ``pool_mode = transaction``) runs each transaction of a
client on whichever connection of Postgres is free. A client then meets the prepared statements and
settings of others, and misses notifications. The latter can be tested: one connection sends a
notification, and another, which does nothing meanwhile, must receive it. A connection that
notifies itself would prove nothing: while its statement runs, it holds the very connection of
Postgres on which it listens.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import asyncpg

from ignition_broker.storage.connection import Driver
from ignition_broker.storage.errors import NOT_KEPT, SessionsNotKept, StorageUnavailable
from ignition_broker.storage.pool import close_quietly

PROOF_SECONDS = 1.0


class Sessions:
    """Checks new connections. ``connect`` opens another one, for the test."""

    def __init__(self, connect: Callable[[], Awaitable[Driver]]) -> None:
        self._connect = connect
        self._are_proved = False
        self._are_doubted = False
        self._proof: asyncio.Task[None] | None = None

    def doubt(self) -> None:
        """Makes the next check test again: an operator may have changed the pooler's mode."""
        self._are_proved, self._are_doubted = False, True

    async def check(self, driver: Driver) -> None:
        """Raises `SessionsNotKept` if the session is not kept, and asyncpg's errors.

        For a direct connection to Postgres this takes one statement. Behind a pooler one test is
        enough until `doubt` is called, and connections made at the same time share it.
        """
        if self._are_proved or (not self._are_doubted and await _is_direct(driver)):
            return
        if self._proof is None or self._proof.done():
            self._proof = asyncio.create_task(self._prove())
            # Retrieves the exception if nobody waits any more, lest asyncio complain.
            self._proof.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._proof)

    async def _prove(self) -> None:
        opened: list[Driver] = []
        try:
            for _ in range(2):
                opened.append(await self._connect())  # noqa: PERF401  # closed where one fails
            if not await _hears(*opened):
                raise SessionsNotKept(NOT_KEPT)
        finally:
            for driver in opened:
                await close_quietly(driver)
        self._are_proved, self._are_doubted = True, False


async def _is_direct(driver: Driver) -> bool:
    """Postgres tells its process id when a connection starts; a pooler makes one up."""
    try:
        pid = await driver.fetchval("SELECT pg_backend_pid()")
    except (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError):
        return False
    return bool(pid == driver.get_server_pid())


async def _hears(listening: Driver, speaking: Driver) -> bool:
    channel = f"proof_{secrets.token_hex(8)}"
    heard = asyncio.Event()
    await listening.add_listener(channel, lambda *_: heard.set())
    await speaking.execute(f"NOTIFY {channel}")
    try:
        async with asyncio.timeout(PROOF_SECONDS):
            await heard.wait()
    except TimeoutError:
        if listening.is_closed() or speaking.is_closed():
            raise StorageUnavailable("the connection broke while it was tried") from None
        return False
    return True
