"""The pool of connections, on a real Postgres."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from tests.conftest import sql

from ignition_broker.storage import audit, tenants
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError, StorageUnavailable

PID = text("SELECT pg_backend_pid()")
SLEEP = text("SELECT pg_sleep(:seconds)")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url, pool_size=2)
    yield opened
    await opened.aclose()


async def connections_of(database: Database, statements: int) -> set[int]:
    """The backends that carried out so many statements at once."""
    asked = [database.single(lambda c: c.scalar(PID)) for _ in range(statements)]
    return set(await asyncio.gather(*asked))


async def test_a_burst_opens_no_more_connections_than_the_pool_has_and_keeps_them(database):
    first = await connections_of(database, 50)
    assert len(first) == 2
    assert await connections_of(database, 50) <= first


async def test_a_refused_statement_leaves_the_connection_as_good_as_before(database):
    before = await database.single(lambda c: c.scalar(PID))
    for refused in ("SELECT * FROM no_such_table", "SELECT 1 / 0"):
        with pytest.raises(StorageError):
            await database.single(lambda c, refused=refused: c.execute(text(refused)))
    assert await database.single(lambda c: c.scalar(PID)) == before


async def test_a_column_is_an_attribute_of_its_own_rows_alone(database):
    """Also once other rows had a column of that name, at another place."""
    for asked, found in (
        (text("SELECT 1 AS one_column, 2 AS another"), (1, 2)),
        (text("SELECT 3 AS another, 4 AS one_column"), (4, 3)),
    ):
        row = (await database.single(lambda c, asked=asked: c.execute(asked))).one()
        assert [(row.one_column, row.another) for _ in range(2)] == [found, found]
        with pytest.raises(AttributeError, match="no_column"):
            row.no_column  # noqa: B018
    row = (await database.single(lambda c: c.execute(text("SELECT 5 AS another")))).one()
    assert row.another == 5
    with pytest.raises(KeyError, match="one_column"):
        row.one_column  # noqa: B018


async def test_a_statement_that_was_given_up_takes_its_connection_with_it(database):
    given_up = asyncio.create_task(database.single(lambda c: c.execute(SLEEP, {"seconds": 60.0})))
    await asyncio.sleep(0.3)
    given_up.cancel()
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert len(await connections_of(database, 50)) == 2
    assert time.monotonic() - began < 5


async def test_whoever_finds_no_connection_free_in_time_is_told(database, monkeypatch):
    monkeypatch.setattr(database._pool, "_patience_seconds", 0.2)
    sleeping = [
        asyncio.create_task(database.single(lambda c: c.execute(SLEEP, {"seconds": 1.5})))
        for _ in range(2)
    ]
    await asyncio.sleep(0.3)
    with pytest.raises(StorageUnavailable, match="no database connection became free in time"):
        await database.single(lambda c: c.scalar(PID))
    await asyncio.gather(*sleeping)
    assert await database.single(lambda c: c.scalar(PID))


async def test_connections_that_postgres_ended_are_not_used_again(database, postgres, database_url):
    before = await connections_of(database, 50)
    ended = ", ".join(f"pg_terminate_backend({pid})" for pid in before)
    sql(postgres, database_url, f"SELECT {ended}")
    await asyncio.sleep(0.2)
    assert not before & await connections_of(database, 50)


async def test_a_transaction_that_fails_leaves_nothing_behind(database):
    with contextlib.suppress(RuntimeError):
        async with database.begin() as connection:
            await tenants.ensure(connection, "rolled-back")
            raise RuntimeError("after the statement")
    assert await database.once(lambda c: tenants.read(c, "rolled-back")) is None
    async with database.begin() as connection:
        await tenants.ensure(connection, "committed")
    assert await database.once(lambda c: tenants.read(c, "committed")) is not None


async def test_the_detail_of_an_event_comes_back_as_it_was_written(database):
    event = audit.AuditEvent("test", "done", "tester", "acme", None, {"a": [1, "ü", None]})
    await database.single(lambda c: audit.append(c, event))
    newest = await database.once(lambda c: audit.newest(c, tenant="acme", before=None, limit=1))
    assert newest[0].event == event


async def test_nothing_stays_open_behind_a_pool_that_was_closed(postgres, database_url):
    opened = Database(database_url, pool_size=3)
    pids = await connections_of(opened, 50)
    await opened.aclose()
    await asyncio.sleep(0.2)
    alive = sql(
        postgres,
        database_url,
        f"SELECT count(*) FROM pg_stat_activity WHERE pid IN ({', '.join(map(str, pids))})",
    )
    assert alive == "0"
