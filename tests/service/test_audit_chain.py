"""The chains of the audit trail, on a real Postgres: whole after anything that writers do, and
broken by anything that others do to it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from tests.conftest import sql

from ignition_broker.broker.audit import verification as trail
from ignition_broker.model import AuditEvent, ChainLink
from ignition_broker.storage import audit, audit_chain, new_tokens, tenants
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError, StorageUnavailable
from ignition_broker.storage.sealed_tokens import Schedule, SealedTokens

EVENT = AuditEvent("connect", "done", "admin", "acme", "id-1", {"scope": "réad", "n": [1, None]})
LATER = datetime.now(UTC) + timedelta(days=1)


class Trail:
    """A database of its own, and one look at it."""

    def __init__(self, postgres, url: str) -> None:
        self._postgres = postgres
        self._url = url
        self.database = Database(url, pool_size=20)

    def sql(self, statement: str) -> str:
        return sql(self._postgres, self._url, statement)

    async def append(self, *events: AuditEvent) -> None:
        async with self.database.begin() as connection:
            await audit.append(connection, *events)

    async def append_many(self, number: int) -> None:
        await self.database.single(
            lambda c: audit.append_many(
                c, [replace(EVENT, request_id=f"{i}") for i in range(number)]
            )
        )

    async def verify(self, kept: list[ChainLink] | None = None) -> trail.Verdict:
        return await trail.verify(self.database, kept or [])

    async def findings(self, kept: list[ChainLink] | None = None) -> list[str]:
        return (await self.verify(kept)).findings


@pytest.fixture
async def chained(postgres):
    name = f"audit_{secrets.token_hex(4)}"
    postgres.create_database(name, template="template_broker")
    looked_at = Trail(postgres, postgres.url(name))
    yield looked_at
    await looked_at.database.aclose()


async def test_whatever_statement_writes_an_event_chains_it(chained):
    await chained.append(EVENT)
    await chained.append(*[replace(EVENT, tenant=None, request_id=None, detail={})] * 3)
    await chained.append_many(20)
    tokens = SealedTokens(b"a", b"r", "Bearer", "", 60.0, "0123456789")
    await chained.database.single(lambda c: tenants.ensure(c, "acme"))
    await chained.database.single(
        lambda c: new_tokens.store_connected(
            c, "acme", tokens, Schedule(30, 0), EVENT, age_seconds=0
        )
    )
    chained.sql("INSERT INTO audit_events (actor, action, outcome) VALUES ('psql', 'x', 'y')")
    verdict = await chained.verify()
    assert (verdict.events, verdict.unchained, verdict.findings) == (26, 0, [])
    assert chained.sql("SELECT DISTINCT chain FROM audit_events") == "1", "one writer at a time"


async def test_an_event_that_is_rolled_back_leaves_no_gap(chained):
    await chained.append(EVENT)
    with contextlib.suppress(RuntimeError):
        async with chained.database.begin() as connection:
            await audit.append(connection, EVENT, EVENT)
            raise RuntimeError
    async with chained.database.begin() as connection:
        await connection.execute(text("SAVEPOINT before"))
        await audit.append(connection, EVENT)
        await connection.execute(text("ROLLBACK TO before"))
        await audit.append(connection, EVENT)
    await chained.append(EVENT)
    verdict = await chained.verify()
    assert (verdict.events, verdict.findings) == (3, [])


async def test_a_writer_who_has_not_committed_keeps_nobody_waiting(chained):
    async with chained.database.begin() as slow:
        await audit.append(slow, EVENT)
        async with asyncio.timeout(1):
            await chained.append(EVENT)
        await audit.append(slow, EVENT)
    verdict = await chained.verify()
    assert (verdict.events, verdict.findings) == (3, [])
    assert chained.sql("SELECT count(DISTINCT chain) FROM audit_events") == "2"


async def test_with_every_chain_taken_a_writer_waits_for_one(chained):
    async with chained.database.begin() as connection:
        await connection.execute(text("SELECT FROM audit_chains FOR UPDATE"))
        waiting = asyncio.create_task(chained.append(EVENT))
        await asyncio.sleep(0.3)
        assert not waiting.done()
    await waiting
    verdict = await chained.verify()
    assert (verdict.events, verdict.findings) == (1, [])


async def test_four_writers_that_roll_back_and_are_killed_leave_whole_chains(chained, postgres):
    """Each a process' pool, with several transactions at once; what was committed is there."""
    writers = [Database(chained._url, pool_size=8) for _ in range(4)]
    chance = random.Random(1)
    committed = 0

    async def write(database: Database) -> None:
        nonlocal committed
        for _ in range(25):
            number = chance.randrange(1, 4)
            with contextlib.suppress(RuntimeError, StorageUnavailable):
                async with database.begin() as connection:
                    await audit.append(connection, *[EVENT] * number)
                    if chance.random() < 0.3:
                        await asyncio.sleep(0.005)
                        raise RuntimeError
                committed += number

    async def kill() -> None:
        for _ in range(10):
            await asyncio.sleep(0.05)
            chained.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = "
                "current_database() AND application_name = 'ignition-broker' "
                "ORDER BY random() LIMIT 3"
            )

    await asyncio.gather(kill(), *(write(database) for database in writers for _ in range(6)))
    for database in writers:
        await database.aclose()
    verdict = await chained.verify()
    assert verdict.findings == []
    # A connection that is killed during its commit may have committed.
    assert committed <= verdict.events <= committed + 30
    assert int(chained.sql("SELECT count(DISTINCT chain) FROM audit_events")) > 1


COLUMNS = {
    "at": "at + interval '1 microsecond'",
    "tenant_id": "'other'",
    "actor": "'somebody'",
    "action": "'disconnect'",
    "outcome": "'failed'",
    "request_id": "NULL",
    "detail": "detail || '{\"n\": 2}'",
    "hash": "sha256('x')",
}


@pytest.mark.parametrize("column", COLUMNS)
async def test_a_changed_column_is_found(chained, column):
    await chained.append(*[EVENT] * 5)
    assert await chained.findings() == []
    chained.sql(f"UPDATE audit_events SET {column} = {COLUMNS[column]} WHERE position = 3")
    findings = await chained.findings()
    assert findings
    assert "event 3 (chain 1, position 3): was changed" in findings[0]


AGAIN = """
    UPDATE audit_events AS event SET hash = sha256(before.hash || convert_to(jsonb_build_array(
        event.chain, event.position, event.id, (extract(epoch FROM event.at) * 1000000)::bigint,
        event.tenant_id, event.actor, event.action, event.outcome, event.request_id, event.detail
    )::text, 'UTF8'))
    FROM audit_events AS before WHERE event.position = {position}
        AND before.position = event.position - 1 AND before.chain = event.chain
"""


async def test_a_changed_event_with_its_hash_made_anew_is_found_by_the_next_one(chained):
    await chained.append(*[EVENT] * 5)
    chained.sql("UPDATE audit_events SET actor = 'x' WHERE position = 3")
    chained.sql(AGAIN.format(position=3))
    (finding,) = await chained.findings()
    assert "event 4 (chain 1, position 4): was changed, or does not follow event 3" in finding


async def test_a_changed_last_event_with_its_hash_made_anew_is_found_by_the_head(chained):
    await chained.append(*[EVENT] * 5)
    chained.sql("UPDATE audit_events SET actor = 'x' WHERE position = 5")
    chained.sql(AGAIN.format(position=5))
    assert await chained.findings() == [
        "chain 1: event 5 is not the one that its head names",
    ]


@pytest.mark.parametrize(
    ("removed", "finding"),
    [
        ("position = 1", "chain 1: 1 event is missing between its beginning and event 2"),
        ("position IN (2, 3)", "chain 1: 2 events are missing between event 1 and event 4"),
        ("position = 5", "chain 1: 1 event is missing at its end, after event 4"),
        ("true", "chain 1: 5 events are missing at its end, after its beginning"),
    ],
)
async def test_removed_events_are_found(chained, removed, finding):
    await chained.append(*[EVENT] * 5)
    chained.sql(f"DELETE FROM audit_events WHERE {removed}")
    assert await chained.findings() == [finding]
    await chained.append(EVENT, EVENT)
    assert len(await chained.findings()) == 1, "and stay found when the trail goes on"


async def test_reordered_events_are_found(chained):
    await chained.append(*[replace(EVENT, request_id=str(number)) for number in range(5)])
    chained.sql("UPDATE audit_events SET position = 9 WHERE position = 2")
    chained.sql("UPDATE audit_events SET position = 2 WHERE position = 4")
    chained.sql("UPDATE audit_events SET position = 4 WHERE position = 9")
    findings = await chained.findings()
    assert "event 4 (chain 1, position 2)" in findings[0]
    assert len(findings) >= 2


async def test_events_put_in_by_the_back_door_are_found(chained):
    await chained.append(*[EVENT] * 3)
    chained.sql("ALTER TABLE audit_events DISABLE TRIGGER audit_events_chain")
    await chained.append(EVENT)
    chained.sql("ALTER TABLE audit_events ENABLE TRIGGER audit_events_chain")
    assert await chained.findings() == ["recent events in no chain: 1"]
    await chained.append(EVENT)
    chained.sql("UPDATE audit_events SET chain = -1 WHERE id = 5")
    assert any(
        "event 5: is in chain -1, which does not exist" in f for f in await chained.findings()
    )
    chained.sql("UPDATE audit_events SET chain = 1, position = 0 WHERE id = 5")
    assert any("stands before its chain's beginning" in f for f in await chained.findings())


async def test_a_removed_chain_and_a_removed_head_are_found(chained):
    await chained.append(*[EVENT] * 3)
    chained.sql("DELETE FROM audit_heads")
    assert await chained.findings() == ["chain 1: its head is missing"]
    chained.sql("DELETE FROM audit_events")
    chained.sql("DELETE FROM audit_chains WHERE chain = 1")
    assert await chained.findings() == ["chain 1: is missing"]
    await chained.append(EVENT)
    assert await chained.findings() == ["chain 1: is missing"]


async def test_a_forged_trail_is_found_by_heads_that_were_kept_elsewhere(chained):
    """Whoever may write all of the tables can make the hashes anew; the heads tell."""
    await chained.append(*[EVENT] * 5)
    kept = await trail.heads(chained.database)
    assert [(head.chain, head.position) for head in kept] == [(1, 5)]
    await chained.append(EVENT)
    assert await chained.findings(kept) == []
    chained.sql("UPDATE audit_events SET actor = 'x' WHERE position = 4")
    for position in (4, 5, 6):
        chained.sql(AGAIN.format(position=position))
    chained.sql(
        "UPDATE audit_heads SET hash = event.hash FROM audit_events AS event "
        "WHERE audit_heads.position = event.position"
    )
    assert await chained.findings() == []
    assert await chained.findings(kept) == [
        "event 5 (chain 1, position 5): is not the event that the kept head names"
    ]
    chained.sql("DELETE FROM audit_events WHERE position > 4")
    chained.sql("DELETE FROM audit_heads WHERE position > 4")
    assert await chained.findings() == []
    assert await chained.findings(kept) == ["chain 1: the kept head at position 5 is missing"]


async def test_superseded_heads_are_cleared_and_nothing_is_missed(chained):
    await chained.append(*[EVENT] * 3)
    async with chained.database.begin() as slow:
        await audit.append(slow, EVENT)
        await chained.append(EVENT, EVENT)
        await chained.database.single(audit_chain.clear_heads)
        assert chained.sql("SELECT count(*) FROM audit_heads") == "2"
    await chained.append(EVENT)
    await chained.database.single(audit_chain.clear_heads)
    assert chained.sql("SELECT count(*) FROM audit_heads") == "2"
    assert await chained.findings() == []


async def test_events_older_than_the_retention_are_pruned_and_the_rest_verifies(chained):
    async with chained.database.begin() as slow:
        await audit.append(slow, EVENT)
        await chained.append_many(2500)
    chained.sql("ALTER TABLE audit_events DISABLE TRIGGER audit_events_chain")
    await chained.append(EVENT)
    chained.sql("ALTER TABLE audit_events ENABLE TRIGGER audit_events_chain")
    kept = await trail.heads(chained.database)
    assert await trail.prune(chained.database, 1.0) == 0
    await asyncio.sleep(1.1)
    await chained.append(EVENT)
    young = chained.sql("SELECT max(id) FROM audit_events")
    assert await trail.prune(chained.database, 1 / 86_400) == 2502
    assert chained.sql("SELECT string_agg(id::text, ',') FROM audit_events") == young
    assert await chained.findings(kept) == []
    await chained.append(EVENT)
    verdict = await chained.verify(kept)
    assert (verdict.events, verdict.findings) == (2, [])
    chained.sql("DELETE FROM audit_events WHERE id = (SELECT min(id) FROM audit_events)")
    (finding,) = await chained.findings()
    assert "1 event is missing between its beginning and event" in finding


async def test_pruning_amid_writers_leaves_whole_chains(chained):
    async def write() -> None:
        for _ in range(40):
            await chained.append(EVENT, EVENT)

    async def prune() -> int:
        return sum([await trail.prune(chained.database, 0.02 / 86_400) for _ in range(40)])

    gone, *_ = await asyncio.gather(prune(), *(write() for _ in range(6)))
    assert gone > 0
    verdict = await chained.verify()
    assert (verdict.events, verdict.findings) == (480 - gone, [])


async def test_events_from_before_there_were_chains_are_counted_and_no_fault(chained):
    chained.sql("ALTER TABLE audit_events DISABLE TRIGGER audit_events_chain")
    await chained.append(EVENT, EVENT)
    chained.sql("ALTER TABLE audit_events ENABLE TRIGGER audit_events_chain")
    await chained.append(EVENT)
    verdict = await chained.verify()
    assert (verdict.events, verdict.unchained, verdict.findings) == (1, 2, [])


async def test_a_long_trail_is_verified_and_exported_page_by_page(chained):
    for _ in range(4):
        await chained.append_many(trail.PAGE_SIZE // 3)
    number = 4 * (trail.PAGE_SIZE // 3)
    assert number > trail.PAGE_SIZE
    verdict = await chained.verify()
    assert (verdict.events, verdict.findings) == (number, [])
    since = datetime(2020, 1, 1, tzinfo=UTC)
    found = [e async for e in trail.export(chained.database, since=since, until=LATER)]
    assert len({event.id for event in found}) == len(found) == number
    assert found == sorted(found, key=lambda event: (event.at, event.id))


async def test_a_second_try_to_store_adds_only_what_is_missing(chained):
    began = datetime.now(UTC)
    first, second = replace(EVENT, request_id="1"), replace(EVENT, request_id="2", tenant=None)
    await chained.database.single(lambda c: audit.append_many(c, [first]))
    await chained.database.single(lambda c: audit.append_missing(c, [first, second], since=began))
    assert chained.sql("SELECT string_agg(request_id, ',' ORDER BY id) FROM audit_events") == "1,2"


async def test_a_chain_cannot_fork(chained):
    await chained.append(EVENT)
    chained.sql("UPDATE audit_heads SET position = 0")
    with pytest.raises(StorageError):
        await chained.append(EVENT)
