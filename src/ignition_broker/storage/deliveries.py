"""Deliveries: each event on its way to each destination, leased by the replica that sends it.

Leases and due times are on the database's clock. An event is not claimed while an earlier one of
the same tenant waits for the same destination. The check reads a snapshot, in which an event can
only seem to wait for longer than it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from ignition_broker.storage.connection import LOCK_BRIEFLY, Connection, Row
from ignition_broker.storage.outbox import EVENT_COLUMNS, OutboxEvent

TRIED_FOR_SECONDS = 3 * 86_400.0
"""How long after the event its delivery is tried."""

_FREE = "(delivery.lease_until IS NULL OR delivery.lease_until < now())"
_LEASED = """
    UPDATE webhook_deliveries SET lease_owner = :owner, tries = tries + 1, tried_at = now(),
        lease_until = now() + make_interval(secs => :lease)
    FROM due WHERE webhook_deliveries.id = due.id
    RETURNING webhook_deliveries.id, webhook_deliveries.webhook_id, webhook_deliveries.event_id,
        webhook_deliveries.tries
"""
_CLAIMED = f"""
    SELECT leased.id, leased.webhook_id, leased.tries, {EVENT_COLUMNS}
    FROM leased JOIN outbox_events AS event ON event.id = leased.event_id
    ORDER BY leased.event_id
"""  # noqa: S608  # constants of this package alone

# What a replica asks once a second: whether there is anything to do.
LOOK = text("""
    SELECT EXISTS (SELECT FROM outbox_events WHERE position IS NULL) AS has_new,
        EXISTS (
            SELECT FROM webhook_deliveries
            WHERE state = 'waiting' AND next_try_at <= now()
              AND (lease_until IS NULL OR lease_until < now())) AS has_due
""")

CLAIM = text(f"""
    WITH due AS (
        SELECT delivery.id FROM webhook_deliveries AS delivery
        JOIN webhooks ON webhooks.id = delivery.webhook_id
        WHERE delivery.state = 'waiting' AND delivery.next_try_at <= now() AND {_FREE}
          AND webhooks.kind = 'webhook' AND webhooks.id <> ALL(:busy)
          AND (webhooks.affirmed_at IS NULL OR webhooks.id = ANY(:known))
          AND NOT EXISTS (
            SELECT FROM webhook_deliveries AS earlier
            WHERE earlier.webhook_id = delivery.webhook_id
              AND earlier.ordered_by = delivery.ordered_by
              AND earlier.state = 'waiting' AND earlier.event_id < delivery.event_id)
        ORDER BY delivery.next_try_at LIMIT :limit FOR UPDATE OF delivery SKIP LOCKED
    ), leased AS ({_LEASED}) {_CLAIMED}
""")  # noqa: S608  # constants of this package alone

# All that waits for one destination for people, oldest first, once its oldest has waited a little
# and its last message is a while ago.
CLAIM_DIGEST = text(f"""
    WITH destination AS (
        SELECT webhooks.id FROM webhooks
        WHERE webhooks.kind = ANY(:kinds) AND webhooks.id <> ALL(:busy)
          AND (webhooks.affirmed_at IS NULL OR webhooks.id = ANY(:known))
          AND (webhooks.last_sent_at IS NULL
               OR webhooks.last_sent_at < now() - make_interval(secs => :apart))
          AND EXISTS (
            SELECT FROM webhook_deliveries AS delivery
            WHERE delivery.webhook_id = webhooks.id AND delivery.state = 'waiting'
              AND delivery.next_try_at <= now() - make_interval(secs => :gather))
          AND NOT EXISTS (
            SELECT FROM webhook_deliveries AS delivery
            WHERE delivery.webhook_id = webhooks.id AND delivery.state = 'waiting'
              AND (delivery.lease_until >= now() OR delivery.tries > 0
                   AND delivery.next_try_at > now()))
        LIMIT 1 FOR UPDATE OF webhooks SKIP LOCKED
    ), due AS (
        SELECT delivery.id FROM webhook_deliveries AS delivery
        WHERE delivery.webhook_id = (SELECT id FROM destination) AND delivery.state = 'waiting'
          AND {_FREE}
        ORDER BY delivery.event_id LIMIT :limit FOR UPDATE SKIP LOCKED
    ), leased AS ({_LEASED}) {_CLAIMED}
""")  # noqa: S608

# By whoever holds or held the lease: what was taken was taken.
TAKEN = text(f"""
    WITH settled AS (
        UPDATE webhook_deliveries SET state = 'taken', settled_at = now(), http_status = :status,
            error = NULL, lease_owner = NULL, lease_until = NULL
        WHERE id = ANY(:ids) AND state = 'waiting' AND {LOCK_BRIEFLY} RETURNING webhook_id
    )
    UPDATE webhooks SET last_sent_at = now()
    WHERE id = (SELECT webhook_id FROM settled LIMIT 1) AND kind <> 'webhook'
""")  # noqa: S608

FAILED = text(f"""
    UPDATE webhook_deliveries SET lease_owner = NULL, lease_until = NULL, http_status = :status,
        error = :error, next_try_at = now() + make_interval(secs => :wait),
        state = CASE WHEN now() + make_interval(secs => :wait)
                > begun_at + make_interval(secs => :tried_for)
            THEN 'given_up' ELSE state END,
        settled_at = CASE WHEN now() + make_interval(secs => :wait)
                > begun_at + make_interval(secs => :tried_for)
            THEN now() END
    WHERE id = ANY(:ids) AND lease_owner = :owner AND state = 'waiting' AND {LOCK_BRIEFLY}
    RETURNING state
""")  # noqa: S608

# The try was not made. It does not count.
GIVE_BACK = text(f"""
    UPDATE webhook_deliveries SET lease_owner = NULL, lease_until = NULL, tries = tries - 1
    WHERE id = ANY(:ids) AND lease_owner = :owner AND state = 'waiting' AND {LOCK_BRIEFLY}
""")  # noqa: S608

# Nobody can send to a destination that is in no replica's settings any more.
GIVE_UP_OLD = text("""
    UPDATE webhook_deliveries SET state = 'given_up', settled_at = now(),
        error = coalesce(error, 'no replica has this destination in its settings')
    WHERE id IN (
        SELECT delivery.id FROM webhook_deliveries AS delivery
        WHERE delivery.state = 'waiting'
          AND delivery.begun_at < now() - make_interval(secs => :seconds)
          AND (delivery.lease_until IS NULL OR delivery.lease_until < now())
        LIMIT :limit FOR UPDATE SKIP LOCKED
    ) RETURNING id
""")


@dataclass(frozen=True, slots=True)
class Work:
    """``has_new``: events whose deliveries are not made yet. ``has_due``: deliveries to be tried,
    some of which may have to wait for an earlier one."""

    has_new: bool
    has_due: bool


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """One event to be sent. ``tries``: this one included."""

    id: int
    webhook: str
    tries: int
    event: OutboxEvent


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who claims. ``owner``: a name for this claim alone. ``known``: the destinations that its
    settings hold. ``busy``: those to which it sends enough already."""

    owner: str
    lease_seconds: float
    known: Sequence[str]
    busy: Sequence[str] = ()

    def parameters(self) -> dict[str, object]:
        return {
            "owner": self.owner,
            "lease": self.lease_seconds,
            "known": list(self.known),
            "busy": list(self.busy),
        }


async def look(connection: Connection) -> Work:
    row = (await connection.execute(LOOK)).one()
    return Work(row.has_new, row.has_due)


async def claim(
    connection: Connection, claimant: Claimant, *, limit: int
) -> Sequence[ClaimedDelivery]:
    """Leases at most ``limit`` due deliveries to webhooks, the longest overdue first."""
    rows = await connection.execute(CLAIM, {**claimant.parameters(), "limit": limit})
    return [_claimed(row) for row in rows]


async def claim_digest(
    connection: Connection,
    claimant: Claimant,
    *,
    kinds: Sequence[str],
    gather_seconds: float,
    apart_seconds: float,
    limit: int,
) -> Sequence[ClaimedDelivery]:
    """Leases all that waits for one destination of ``kinds``, for one message.

    Args:
        gather_seconds: how long its oldest event must have waited.
        apart_seconds: how long ago its last message must be.
    """
    given = {
        **claimant.parameters(),
        "kinds": list(kinds),
        "gather": gather_seconds,
        "apart": apart_seconds,
        "limit": limit,
    }
    return [_claimed(row) for row in await connection.execute(CLAIM_DIGEST, given)]


async def record_taken(
    connection: Connection, ids: Sequence[int], *, http_status: int | None
) -> None:
    """They are not sent again."""
    await connection.execute(TAKEN, {"ids": list(ids), "status": http_status})


async def record_failed(
    connection: Connection,
    ids: Sequence[int],
    *,
    owner: str,
    http_status: int | None,
    error: str,
    wait_seconds: float,
) -> bool:
    """They are tried again after ``wait_seconds``. Returns whether any was given up instead,
    because that would be more than `TRIED_FOR_SECONDS` after its event."""
    given = {
        "ids": list(ids),
        "owner": owner,
        "status": http_status,
        "error": error,
        "wait": wait_seconds,
        "tried_for": TRIED_FOR_SECONDS,
    }
    return any(row.state == "given_up" for row in await connection.execute(FAILED, given))


async def give_back(connection: Connection, ids: Sequence[int], *, owner: str) -> None:
    """Ends the lease of deliveries that were not sent."""
    await connection.execute(GIVE_BACK, {"ids": list(ids), "owner": owner})


async def give_up_old(connection: Connection, *, limit: int) -> int:
    """Gives up what nobody could send in time; returns how many."""
    given = {"seconds": TRIED_FOR_SECONDS + 3600, "limit": limit}
    return sum(1 for _ in await connection.execute(GIVE_UP_OLD, given))


def _claimed(row: Row) -> ClaimedDelivery:
    return ClaimedDelivery(row.id, row.webhook_id, row.tries, OutboxEvent.of(row))
