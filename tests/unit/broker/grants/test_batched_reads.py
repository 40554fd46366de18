"""Rows that are asked for at the same time come by one statement, and each caller gets its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ignition_broker.broker.grants.batched_reads import MOST_AT_ONCE, BatchedReads
from ignition_broker.storage.connection import Rows
from ignition_broker.storage.errors import StorageUnavailable


class SlowDatabase:
    """Knows every tenant but ``nobody``, and answers once it is let."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.error: BaseException | None = None

    async def once(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        return await work(self)

    async def execute(self, _statement: object, given: dict[str, list[str]]) -> Rows:
        self.asked.append(sorted(given["tenants"]))
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        known = [tenant for tenant in given["tenants"] if tenant != "nobody"]
        return Rows([SimpleNamespace(known=tenant) for tenant in known])  # type: ignore[misc]


@pytest.fixture
def database() -> SlowDatabase:
    return SlowDatabase()


@pytest.fixture
def reads(database) -> BatchedReads:
    return BatchedReads(database)


async def test_all_of_one_turn_are_read_by_one_statement(reads, database):
    rows = await asyncio.gather(*map(reads.row, ["acme", "zeta", "acme", "nobody"]))
    assert [row and row.known for row in rows] == ["acme", "zeta", "acme", None]
    assert database.asked == [["acme", "nobody", "zeta"]]
    assert (await reads.row("zeta")).known == "zeta"
    assert len(database.asked) == 2


async def test_no_statement_reads_any_number(reads, database):
    tenants = [f"t{number}" for number in range(2 * MOST_AT_ONCE + 1)]
    rows = await asyncio.gather(*map(reads.row, tenants))
    assert [row.known for row in rows] == tenants
    assert sorted(map(len, database.asked)) == [1, MOST_AT_ONCE, MOST_AT_ONCE]


async def test_who_asks_while_a_statement_runs_is_not_answered_by_it(reads, database):
    """It may not see what was committed before this call."""
    database.may_answer.clear()
    first = asyncio.create_task(reads.row("acme"))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(reads.row("acme"))
    await asyncio.sleep(0.01)
    assert database.asked == [["acme"], ["acme"]]
    database.may_answer.set()
    assert (await first).known == (await second).known == "acme"


async def test_an_error_reaches_all_who_wait_for_the_statement_and_nobody_else(reads, database):
    database.error = StorageUnavailable("away")
    told = await asyncio.gather(*map(reads.row, ["acme", "zeta"]), return_exceptions=True)
    assert told == [database.error, database.error]
    database.error = None
    assert (await reads.row("acme")).known == "acme"


async def test_a_caller_who_gives_up_takes_nothing_from_the_others(reads, database):
    database.may_answer.clear()
    gone, stays = asyncio.create_task(reads.row("acme")), asyncio.create_task(reads.row("zeta"))
    await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.sleep(0.01)
    database.may_answer.set()
    assert (await stays).known == "zeta"
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert database.asked == [["acme", "zeta"]]


async def test_who_waits_when_the_statement_is_cancelled_is_cancelled_too(reads, database):
    """As at the end of the process: nobody waits for ever."""
    database.error = asyncio.CancelledError()
    told = await asyncio.gather(reads.row("acme"), reads.row("zeta"), return_exceptions=True)
    assert [type(each) for each in told] == [asyncio.CancelledError] * 2
