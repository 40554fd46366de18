"""The hash chains of the audit trail: reading their links, and pruning old events.

A trigger chains every event (`migrations/versions/0003_expand_audit_chain.py`). It hashes what
`EVENTS` reads: the hash of the event before, then ``fields`` in UTF-8. For the first event of a
chain, the hash before is empty, or that of the last event that was pruned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from ignition_broker.storage.connection import Connection

CHAINS = 64
"""The migration made so many, and there are never more: a missing chain was deleted."""

READ_CHAINS = text("""
    SELECT chain, pruned_position, pruned_hash, head.position, head.hash
    FROM audit_chains LEFT JOIN LATERAL (
        SELECT position, hash FROM audit_heads
        WHERE audit_heads.chain = audit_chains.chain ORDER BY position DESC LIMIT 1
    ) AS head ON true
    ORDER BY chain
""")

EVENTS = text("""
    SELECT id, chain, position, hash, CAST(jsonb_build_array(
        chain, position, id, CAST(extract(epoch FROM at) * 1000000 AS bigint),
        tenant_id, actor, action, outcome, request_id, detail
    ) AS text) AS fields
    FROM audit_events WHERE (chain, position) > (:chain, :position)
    ORDER BY chain, position LIMIT :limit
""")

COUNT_UNCHAINED = text("""
    SELECT count(*) AS number, count(*) FILTER (
        WHERE id > (SELECT min(id) FROM audit_events WHERE chain IS NOT NULL)
    ) AS late
    FROM audit_events WHERE chain IS NULL
""")

# Deletes old events from the beginning of one chain, up to the first one that is locked. Writers
# skip the chain, whose row is locked, and use another.
PRUNE = text("""
    WITH taken AS (
        SELECT chain, pruned_position FROM audit_chains
        WHERE (
            SELECT at FROM audit_events
            WHERE audit_events.chain = audit_chains.chain ORDER BY position LIMIT 1
        ) < now() - make_interval(secs => :seconds)
        ORDER BY chain LIMIT 1 FOR UPDATE SKIP LOCKED
    ), first AS (
        SELECT id, chain, position, hash, at FROM audit_events
        WHERE chain = (SELECT chain FROM taken) ORDER BY position LIMIT :limit
    ), free AS (
        SELECT id FROM audit_events WHERE id IN (SELECT id FROM first) FOR UPDATE SKIP LOCKED
    ), old AS (
        SELECT chain, position, hash FROM (
            SELECT chain, position, hash, bool_and(
                at < now() - make_interval(secs => :seconds) AND id IN (SELECT id FROM free)
            ) OVER (ORDER BY position) AS is_old FROM first
        ) AS judged WHERE is_old
    ), last AS (
        SELECT chain, position, hash FROM old ORDER BY position DESC LIMIT 1
    ), cut AS (
        UPDATE audit_chains SET pruned_position = last.position, pruned_hash = last.hash
        FROM last WHERE audit_chains.chain = last.chain
    )
    DELETE FROM audit_events USING old
    WHERE audit_events.chain = old.chain AND audit_events.position = old.position
    RETURNING id
""")

PRUNE_UNCHAINED = text("""
    DELETE FROM audit_events WHERE id IN (
        SELECT id FROM audit_events
        WHERE chain IS NULL AND at < now() - make_interval(secs => :seconds) LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ) RETURNING id
""")

# Each event inserts a head, of which the newest counts. Updating one row instead would leave many
# dead versions of it while a long transaction, such as a dump, is open.
CLEAR_HEADS = text("""
    DELETE FROM audit_heads WHERE (chain, position) IN (
        SELECT chain, position FROM audit_heads AS head WHERE EXISTS (
            SELECT FROM audit_heads AS newer
            WHERE newer.chain = head.chain AND newer.position > head.position
        ) FOR UPDATE SKIP LOCKED
    )
""")


@dataclass(frozen=True, slots=True)
class Chain:
    """Where a chain begins, and its newest event (None before the first)."""

    chain: int
    pruned_position: int
    pruned_hash: bytes
    head_position: int | None
    head_hash: bytes | None


@dataclass(frozen=True, slots=True)
class ChainedEvent:
    id: int
    chain: int
    position: int
    hash: bytes
    fields: bytes


@dataclass(frozen=True, slots=True)
class Unchained:
    """Events without a chain. ``late``: how many of them are younger than the oldest chained
    one."""

    number: int
    late: int


async def read_chains(connection: Connection) -> Sequence[Chain]:
    """All chains by number."""
    rows = await connection.execute(READ_CHAINS)
    return [
        Chain(row.chain, row.pruned_position, row.pruned_hash, row.position, row.hash)
        for row in rows
    ]


async def events_after(
    connection: Connection, *, chain: int, position: int, limit: int
) -> Sequence[ChainedEvent]:
    """At most ``limit`` events that follow ``position`` of ``chain``, and then those of the chains
    after it, each in its order."""
    given = {"chain": chain, "position": position, "limit": limit}
    return [
        ChainedEvent(row.id, row.chain, row.position, row.hash, row.fields.encode())
        for row in await connection.execute(EVENTS, given)
    ]


async def count_unchained(connection: Connection) -> Unchained:
    row = (await connection.execute(COUNT_UNCHAINED)).one()
    return Unchained(row.number, row.late)


async def prune(connection: Connection, *, older_than_seconds: float, limit: int) -> int:
    """Deletes at most ``limit`` old events of one chain; returns how many. 0: none is that old."""
    given = {"seconds": older_than_seconds, "limit": limit}
    return sum(1 for _ in await connection.execute(PRUNE, given))


async def prune_unchained(connection: Connection, *, older_than_seconds: float, limit: int) -> int:
    """Deletes at most ``limit`` old events without a chain; returns how many."""
    given = {"seconds": older_than_seconds, "limit": limit}
    return sum(1 for _ in await connection.execute(PRUNE_UNCHAINED, given))


async def clear_heads(connection: Connection) -> None:
    """Deletes all heads but the newest of each chain."""
    await connection.execute(CLEAR_HEADS)
