"""Reads the rows of grants: those that are asked for at the same time, by one statement.

After a start nothing is in memory, and each tenant's first call reads its row. A statement's way
through the pool and to Postgres costs more than the row.
"""

from __future__ import annotations

import asyncio

from ignition_broker.storage import grants
from ignition_broker.storage.connection import Row
from ignition_broker.storage.database import Database

MOST_AT_ONCE = 50
"""Rows that one statement reads; more are read by several beside each other."""


class BatchedReads:
    """Collects what is asked for within one turn of the event loop. A statement begins after all
    calls that it serves, so each sees all that was committed before it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wanted: list[tuple[str, asyncio.Future[Row | None]]] = []
        self._reading: set[asyncio.Task[None]] = set()

    async def row(self, tenant: str) -> Row | None:
        """The tenant's row for `grants.grant_of`; None for an unknown tenant. Raises
        `StorageError`."""
        found: asyncio.Future[Row | None] = asyncio.get_running_loop().create_future()
        self._wanted.append((tenant, found))
        if len(self._wanted) == 1:
            # It begins with the next turn.
            task = asyncio.create_task(self._read())
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)
        return await found

    async def _read(self) -> None:
        wanted, self._wanted = self._wanted, []
        if len(wanted) <= MOST_AT_ONCE:
            await self._answer(wanted)
        else:
            parts = range(0, len(wanted), MOST_AT_ONCE)
            await asyncio.gather(
                *(self._answer(wanted[part : part + MOST_AT_ONCE]) for part in parts)
            )

    async def _answer(self, wanted: list[tuple[str, asyncio.Future[Row | None]]]) -> None:
        """Nobody is left without an answer: an error is told to all who wait for the statement."""
        tenants = list({tenant for tenant, _found in wanted})
        try:
            rows = await self._database.once(lambda c: grants.read_rows(c, tenants))
        except BaseException as error:
            for _tenant, found in wanted:
                if not found.done():
                    if isinstance(error, Exception):
                        found.set_exception(error)
                    else:
                        found.cancel()
            if not isinstance(error, Exception):
                raise
        else:
            for tenant, found in wanted:
                if not found.done():
                    found.set_result(rows.get(tenant))
