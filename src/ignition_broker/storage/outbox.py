"""The outbox: events for the outside, in the order in which they became visible.

Triggers on `grants` write the events of tenants, in the transaction of the change
(`migrations/versions/0016_expand_webhooks.py`); `conditions` writes those of the provider. Ids are
given before the commit, so that a smaller one may become visible later. `SPREAD` therefore numbers
what it finds, one replica at a time: whoever has seen a position has seen all before it. Events of
one tenant are in the order of their ids, because each change locks the tenant's row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text

from ignition_broker.storage.connection import Connection, Row

AFFIRMED_FOR_SECONDS: Final = 600.0
"""How long a destination of the settings gets new events after the last replica that has it."""
EVENT_COLUMNS: Final = """
    event.event_id AS event_name, event.at, event.type, event.tenant_id, event.client,
    event.status, event.reason, event.ends_at
"""
"""What `OutboxEvent.of` reads; ``event`` is the row of `outbox_events`."""

# Makes a delivery for each destination. Locks nothing where there is no new event.
SPREAD = text("""
    WITH turn AS (
        SELECT only_row, last_position FROM outbox_turn
        WHERE EXISTS (SELECT FROM outbox_events WHERE position IS NULL) FOR UPDATE SKIP LOCKED
    ), fresh AS (
        SELECT id FROM outbox_events
        WHERE position IS NULL AND EXISTS (SELECT FROM turn)
        ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
    ), numbered AS (
        SELECT id, (SELECT last_position FROM turn) + row_number() OVER (ORDER BY id) AS position
        FROM fresh
    ), placed AS (
        UPDATE outbox_events SET position = numbered.position
        FROM numbered WHERE outbox_events.id = numbered.id
        RETURNING outbox_events.id, outbox_events.position, type, tenant_id, client, webhook_id
    ), counted AS (
        UPDATE outbox_turn SET last_position = (SELECT max(position) FROM placed)
        FROM turn
        WHERE outbox_turn.only_row = turn.only_row AND EXISTS (SELECT FROM placed)
    ), made AS (
        INSERT INTO webhook_deliveries (event_id, webhook_id, ordered_by)
        SELECT placed.id, webhooks.id,
            coalesce('tenant ' || placed.tenant_id, 'client ' || placed.client, 'none')
        FROM placed JOIN webhooks ON CASE
            WHEN placed.webhook_id IS NOT NULL THEN placed.webhook_id = webhooks.id
            ELSE (webhooks.types IS NULL OR placed.type = ANY(webhooks.types))
                AND (webhooks.affirmed_at IS NULL
                     OR webhooks.affirmed_at > now() - make_interval(secs => :affirmed))
            END
        ORDER BY placed.position
    )
    SELECT count(*) AS number FROM placed
""")

TEST = text("""
    INSERT INTO outbox_events (type, status, webhook_id, client)
    VALUES ('test', 'test', :webhook, 'default') RETURNING event_id
""")

AFTER = text(f"""
    SELECT event.position, {EVENT_COLUMNS} FROM outbox_events AS event
    WHERE event.position > :position AND event.webhook_id IS NULL
    ORDER BY event.position LIMIT :limit
""")  # noqa: S608  # constants of this module alone

EXTENT = text("""
    SELECT (SELECT last_position FROM outbox_turn) AS last_position,
        (SELECT min(position) FROM outbox_events) AS first_position
""")

# Their deliveries go with them.
TRIM = text("""
    DELETE FROM outbox_events WHERE id IN (
        SELECT id FROM outbox_events
        WHERE at < now() - make_interval(secs => :seconds) AND position IS NOT NULL
          AND NOT EXISTS (
            SELECT FROM webhook_deliveries AS delivery
            WHERE delivery.event_id = outbox_events.id AND delivery.state = 'waiting')
        ORDER BY at LIMIT :limit FOR UPDATE SKIP LOCKED
    ) RETURNING id
""")


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """Something that happened, for destinations and event streams.

    Attributes:
        name: the same for every try to deliver it.
        at: when it happened, on the database's clock.
        grant: the grant's id (`ignition_broker.grant_ids`); None for an event of no tenant.
        client: of an event of no tenant; None: the grant's id tells.
        ends_at: when the grant ends, for ``tenant.ending_soon``.
    """

    name: str
    at: datetime
    type: str
    grant: str | None
    client: str | None
    status: str
    reason: str | None
    ends_at: datetime | None

    @classmethod
    def of(cls, row: Row) -> OutboxEvent:
        return cls(
            name=row.event_name,
            at=row.at,
            type=row.type,
            grant=row.tenant_id,
            client=row.client,
            status=row.status,
            reason=row.reason,
            ends_at=row.ends_at,
        )


@dataclass(frozen=True, slots=True)
class PlacedEvent:
    """An event and its place among all; no event appears later at a lower place."""

    position: int
    event: OutboxEvent


@dataclass(frozen=True, slots=True)
class Extent:
    """``last_position``: of the newest event that there ever was (0: none). ``first_position``:
    of the oldest that is kept; None: none is."""

    last_position: int
    first_position: int | None


async def spread(connection: Connection, *, limit: int) -> int:
    """Numbers at most ``limit`` new events and makes their deliveries; returns how many there were.

    0: there are none, or another replica is at it.
    """
    given = {"limit": limit, "affirmed": AFFIRMED_FOR_SECONDS}
    return int((await connection.execute(SPREAD, given)).scalar_one())


async def add_test(connection: Connection, webhook: str) -> str:
    """Adds a test event for one destination; returns its name."""
    return str(await connection.scalar(TEST, {"webhook": webhook}))


async def after(connection: Connection, position: int, *, limit: int) -> Sequence[PlacedEvent]:
    """At most ``limit`` events that follow ``position``, the oldest first; no test events."""
    rows = await connection.execute(AFTER, {"position": position, "limit": limit})
    return [PlacedEvent(row.position, OutboxEvent.of(row)) for row in rows]


async def extent(connection: Connection) -> Extent:
    row = (await connection.execute(EXTENT)).one()
    return Extent(row.last_position, row.first_position)


async def trim(connection: Connection, *, older_than_seconds: float, limit: int) -> int:
    """Deletes at most ``limit`` old events that nobody waits for; returns how many."""
    given = {"seconds": older_than_seconds, "limit": limit}
    return sum(1 for _ in await connection.execute(TRIM, given))
