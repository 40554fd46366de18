"""Whether a connection keeps its session, or a pooler shares it out.

A pooler in transaction mode (pgbouncer's ``pool_mode = transaction``) gives each transaction of a
client whichever connection of Postgres is free. Prepared statements and settings are then another
client's, and no notification reaches a client that waits for one. The last is what can be proved:
a notification that one connection sends is heard on another that does nothing meanwhile. A
connection that notifies itself proves nothing: while its statement runs, it holds the very
connection of Postgres that it listens on.
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
    """Checks new connections; ``connect`` makes one more, for a proof."""

    def __init__(self, connect: Callable[[], Awaitable[Driver]]) -> None:
        self._connect = connect
        self._are_proved = False
        self._are_doubted = False
        self._proof: asyncio.Task[None] | None = None

    def doubt(self) -> None:
        """What was proved may hold no longer: an operator may have changed the pooler's mode."""
        self._are_proved, self._are_doubted = False, True

    async def check(self, driver: Driver) -> None:
        """Raises `SessionsNotKept`, and what asyncpg raises.

        A connection that leads straight to Postgres costs one statement. Behind a pooler one proof
        is enough until there is a doubt, and those who connect at the same time share it.
        """
        if self._are_proved or (not self._are_doubted and await _is_direct(driver)):
            return
        if self._proof is None or self._proof.done():
            self._proof = asyncio.create_task(self._prove())
            # Where nobody waits for it any more, asyncio is not to complain.
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
    """Postgres names its process when a connection begins; a pooler makes up a number."""
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
