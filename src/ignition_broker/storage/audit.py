"""The audit trail: events are added and never changed. A trigger chains them by hashes
(`storage.audit_chain`).

An `AuditEvent` names a grant. Its row has the tenant alone, and another client than the default in
the detail, so that all that happened to a tenant is found under its id.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import text

from ignition_broker.cipher import Misplaced
from ignition_broker.grant_ids import DEFAULT_CLIENT, client_of, tenant_of
from ignition_broker.model import AuditEvent, ChainLink, RecordedEvent
from ignition_broker.storage.connection import Connection, Row
from ignition_broker.storage.grant_columns import TENANT

CLIENT = "client"
"""The member of an event's detail that names its client, unless that is the default."""

APPEND = text("""
    INSERT INTO audit_events (tenant_id, actor, action, outcome, request_id, detail)
    VALUES (split_part(CAST(:tenant AS text), '@', 1), :actor, :action, :outcome, :request_id,
        CAST(:detail AS jsonb))
""")

_MANY = """
    INSERT INTO audit_events (tenant_id, actor, action, outcome, request_id, detail)
    SELECT tenant, actor, action, outcome, request_id, CAST(detail AS jsonb)
    FROM unnest(
        CAST(:tenants AS text[]), CAST(:actors AS text[]), CAST(:actions AS text[]),
        CAST(:outcomes AS text[]), CAST(:request_ids AS text[]), CAST(:details AS text[])
    ) AS noted(tenant, actor, action, outcome, request_id, detail)
"""

APPEND_MANY = text(_MANY)

# For a retry, when it is unknown whether the first try was committed before its connection broke.
APPEND_MISSING = text(f"""
    {_MANY} WHERE NOT EXISTS (
        SELECT FROM audit_events AS stored
        WHERE stored.at > CAST(:since AS timestamptz) - interval '1 hour'
          AND stored.request_id = noted.request_id AND stored.actor = noted.actor
          AND stored.action = noted.action AND stored.detail = CAST(noted.detail AS jsonb)
    )
""")

LIST = text(f"""
    SELECT id, at, tenant_id, actor, action, outcome, request_id, detail, chain, position, hash
    FROM audit_events
    WHERE (CAST(:tenant AS text) IS NULL OR tenant_id = :tenant)
      AND (CAST(:client AS text) IS NULL
           OR coalesce(detail->>'{CLIENT}', '{DEFAULT_CLIENT}') = :client)
      AND (CAST(:before AS bigint) IS NULL OR id < :before)
    ORDER BY id DESC LIMIT :limit
""")  # noqa: S608  # constants of this package alone


PAGE = text("""
    SELECT id, at, tenant_id, actor, action, outcome, request_id, detail, chain, position, hash
    FROM audit_events
    WHERE (at, id) > (:at, :id) AND (CAST(:until AS timestamptz) IS NULL OR at < :until)
    ORDER BY at, id LIMIT :limit
""")

AUDIT_CHANGED = f"""
    INSERT INTO audit_events (tenant_id, actor, action, outcome, request_id, detail)
    SELECT {TENANT}, :actor, :action, :outcome, :request_id, CAST(:detail AS jsonb) FROM changed
"""  # noqa: S608
"""A part of statements that change one row and record it: an event of `audit_parameters` for the
tenant of the row ``changed``, and none if no row changed."""


async def append(connection: Connection, *events: AuditEvent) -> None:
    """Adds events, in a statement each."""
    for event in events:
        await connection.execute(APPEND, audit_parameters(event))


async def append_many(connection: Connection, events: Sequence[AuditEvent]) -> None:
    """Adds events in one statement: either all of them are stored or none."""
    await connection.execute(APPEND_MANY, _columns(events))


async def append_missing(
    connection: Connection, events: Sequence[AuditEvent], *, since: datetime
) -> None:
    """Adds those of the events that are not stored yet.

    ``since``: a time of the wall clock before which none of them happened.
    """
    await connection.execute(APPEND_MISSING, {**_columns(events), "since": since})


async def newest(
    connection: Connection,
    *,
    tenant: str | None,
    before: int | None,
    limit: int,
    client: str | None = None,
) -> Sequence[RecordedEvent]:
    """At most ``limit`` events, newest first, whose id is below ``before`` (None: any).

    ``tenant`` None: of all tenants; ``client`` None: of its grants at all OAuth clients.
    """
    parameters = {"tenant": tenant, "client": client, "before": before, "limit": limit}
    rows = await connection.execute(LIST, parameters)
    return [recorded(row) for row in rows]


async def oldest(
    connection: Connection,
    *,
    since: datetime,
    until: datetime | None,
    after: RecordedEvent | None,
    limit: int,
) -> Sequence[RecordedEvent]:
    """At most ``limit`` events in the order of their time, from ``since`` until before ``until``
    (None: no end), those that follow the event ``after``."""
    parameters = {
        "at": since if after is None else after.at,
        "id": -1 if after is None else after.id,
        "until": until,
        "limit": limit,
    }
    return [recorded(row) for row in await connection.execute(PAGE, parameters)]


def _columns(events: Sequence[AuditEvent]) -> dict[str, object]:
    return {
        "tenants": [event.tenant and tenant_of(event.tenant) for event in events],
        "actors": [event.actor for event in events],
        "actions": [event.action for event in events],
        "outcomes": [event.outcome for event in events],
        "request_ids": [event.request_id for event in events],
        "details": [_detail(event) for event in events],
    }


def recorded(row: Row) -> RecordedEvent:
    """The event of a row with all columns."""
    link = None
    if row.chain is not None:
        link = ChainLink(row.chain, row.position, row.hash.hex())
    event = AuditEvent(
        row.action, row.outcome, row.actor, row.tenant_id, row.request_id, row.detail
    )
    return RecordedEvent(row.id, row.at, event, link)


def move_event(error: Misplaced) -> AuditEvent:
    """The event for a ciphertext that was found in another row or column than its own."""
    detail: dict[str, object] = {"column": error.column}
    return AuditEvent("decrypt", "misplaced", "broker", error.tenant, detail=detail)


def audit_parameters(event: AuditEvent) -> dict[str, object]:
    """The parameters of `AUDIT_CHANGED` and of other statements that store one event."""
    return {
        "tenant": event.tenant,
        "actor": event.actor,
        "action": event.action,
        "outcome": event.outcome,
        "request_id": event.request_id,
        "detail": _detail(event),
    }


def _detail(event: AuditEvent) -> str:
    client = DEFAULT_CLIENT if event.tenant is None else client_of(event.tenant)
    added = {} if client == DEFAULT_CLIENT else {CLIENT: client}
    return json.dumps({**event.detail, **added})
