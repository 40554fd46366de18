"""What became of deliveries, as admins see it, and sending one again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from ignition_broker.storage.connection import Connection
from ignition_broker.storage.outbox import EVENT_COLUMNS, OutboxEvent

LIST = text(f"""
    SELECT delivery.id, delivery.state, delivery.tries, delivery.next_try_at, delivery.tried_at,
        delivery.settled_at, delivery.http_status, delivery.error, {EVENT_COLUMNS}
    FROM webhook_deliveries AS delivery
    JOIN outbox_events AS event ON event.id = delivery.event_id
    WHERE delivery.webhook_id = :webhook
      AND (CAST(:before AS bigint) IS NULL OR delivery.id < :before)
    ORDER BY delivery.id DESC LIMIT :limit
""")  # noqa: S608

RESEND = text("""
    WITH changed AS (
        UPDATE webhook_deliveries SET state = 'waiting', tries = 0, next_try_at = now(),
            begun_at = now(), settled_at = NULL, http_status = NULL, error = NULL
        WHERE id = :id AND webhook_id = :webhook AND state <> 'waiting'
        RETURNING id
    ), audited AS (
        INSERT INTO audit_events (tenant_id, actor, action, outcome, request_id, detail)
        SELECT CAST(:tenant AS text), :actor, :action, :outcome, :request_id,
            CAST(:detail AS jsonb) FROM changed
    )
    SELECT id FROM changed
""")

EXISTS = text("SELECT id FROM webhook_deliveries WHERE id = :id AND webhook_id = :webhook")


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """What became of a delivery so far. ``state``: ``waiting``, ``taken`` or ``given_up``."""

    id: int
    event: OutboxEvent
    state: str
    tries: int
    next_try_at: datetime | None
    tried_at: datetime | None
    settled_at: datetime | None
    http_status: int | None
    error: str | None


async def newest(
    connection: Connection, webhook: str, *, before: int | None, limit: int
) -> Sequence[DeliveryRow]:
    """At most ``limit`` deliveries to a destination, newest first, whose id is below ``before``."""
    given = {"webhook": webhook, "before": before, "limit": limit}
    return [
        DeliveryRow(
            id=row.id,
            event=OutboxEvent.of(row),
            state=row.state,
            tries=row.tries,
            next_try_at=row.next_try_at if row.state == "waiting" else None,
            tried_at=row.tried_at,
            settled_at=row.settled_at,
            http_status=row.http_status,
            error=row.error,
        )
        for row in await connection.execute(LIST, given)
    ]


async def exists(connection: Connection, webhook: str, delivery: int) -> bool:
    given = {"id": delivery, "webhook": webhook}
    return await connection.scalar(EXISTS, given) is not None


async def resend(
    connection: Connection, webhook: str, delivery: int, audited: dict[str, object]
) -> bool:
    """Makes a settled delivery wait again, and records the event of `audit_parameters`.

    Returns False if it waits already, or is none of this destination's.
    """
    given = {"id": delivery, "webhook": webhook, **audited}
    return (await connection.execute(RESEND, given)).one_or_none() is not None
