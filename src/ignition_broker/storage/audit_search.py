"""Searches the audit trail by who did what and when, at a bounded cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text

from ignition_broker.model import RecordedEvent
from ignition_broker.storage.audit import recorded
from ignition_broker.storage.connection import Connection

SCANNED: Final = 50_000
"""So many events are looked through at a time. To find a rare one among millions would take
minutes, and an index for each question would cost every call that is recorded."""

_LOOKED_AT = """
    SELECT id, at, tenant_id, actor, action, outcome, request_id, detail, chain, position, hash
    FROM audit_events
    WHERE {of} (CAST(:before AS bigint) IS NULL OR id < :before)
      AND (CAST(:until AS timestamptz) IS NULL OR id <= (
          SELECT newest.id FROM audit_events AS newest WHERE newest.at < :until
          ORDER BY newest.at DESC, newest.id DESC LIMIT 1))
    ORDER BY id DESC LIMIT :scanned
"""

_SEARCH = """
    WITH looked_at AS ({looked_at}), whole AS (
        SELECT min(id) AS last_id, min(at) AS last_at, count(*) AS number FROM looked_at
    )
    SELECT found.*, whole.last_id, whole.last_at, whole.number
    FROM whole LEFT JOIN (
        SELECT * FROM looked_at
        WHERE (CAST(:actor AS text) IS NULL OR actor = :actor)
          AND (CAST(:action AS text) IS NULL OR action = :action)
          AND (CAST(:since AS timestamptz) IS NULL OR at >= :since)
        ORDER BY id DESC LIMIT :limit
    ) AS found ON true
    ORDER BY found.id DESC
"""

# Two statements, since no index can serve a condition that may be absent.
SEARCH = text(_SEARCH.format(looked_at=_LOOKED_AT.format(of="")))
SEARCH_TENANT = text(_SEARCH.format(looked_at=_LOOKED_AT.format(of="tenant_id = :tenant AND")))


@dataclass(frozen=True, slots=True)
class Criteria:
    """Which events are looked for; None: any. ``until`` is not included."""

    tenant: str | None = None
    actor: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """``events``: newest first. ``go_on_before``: the id from which on the search has to go on, if
    there may be more. ``looked_back_to``: the time of the oldest event that was looked at."""

    events: Sequence[RecordedEvent]
    go_on_before: int | None
    looked_back_to: datetime | None


async def search(
    connection: Connection, criteria: Criteria, *, before: int | None, limit: int
) -> Found:
    """At most ``limit`` events, of the newest `SCANNED` whose id is below ``before``."""
    given = {
        "actor": criteria.actor,
        "action": criteria.action,
        "since": criteria.since,
        "until": criteria.until,
        "before": before,
        "limit": limit + 1,
        "scanned": SCANNED,
    }
    if criteria.tenant is not None:
        given["tenant"] = criteria.tenant
    statement = SEARCH if criteria.tenant is None else SEARCH_TENANT
    rows = list(await connection.execute(statement, given))
    whole = rows[0]
    events = [recorded(row) for row in rows if row.id is not None]
    if len(events) > limit:
        return Found(events[:limit], events[limit - 1].id, events[limit - 1].at)
    is_past = criteria.since is not None and (
        whole.last_at is None or whole.last_at < criteria.since
    )
    is_whole = whole.number < SCANNED or is_past
    return Found(events, None if is_whole else whole.last_id, whole.last_at)
