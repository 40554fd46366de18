"""The audit trail: rows are added, never changed."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import text

from ignition_broker.cipher import Misplaced
from ignition_broker.model import AuditEvent, RecordedEvent
from ignition_broker.storage.connection import Connection

APPEND = text("""
    INSERT INTO audit_events (tenant_id, actor, action, outcome, request_id, detail)
    VALUES (:tenant, :actor, :action, :outcome, :request_id, CAST(:detail AS jsonb))
""")

LIST = text("""
    SELECT id, at, tenant_id, actor, action, outcome, request_id, detail
    FROM audit_events
    WHERE (CAST(:tenant AS text) IS NULL OR tenant_id = :tenant)
      AND (CAST(:before AS bigint) IS NULL OR id < :before)
    ORDER BY id DESC LIMIT :limit
""")


async def append(connection: Connection, *events: AuditEvent) -> None:
    for event in events:
        await connection.execute(APPEND, audit_parameters(event))


async def newest(
    connection: Connection, *, tenant: str | None, before: int | None, limit: int
) -> Sequence[RecordedEvent]:
    """At most ``limit`` events, newest first, those with a smaller id than ``before``."""
    rows = await connection.execute(LIST, {"tenant": tenant, "before": before, "limit": limit})
    return [
        RecordedEvent(
            row.id,
            row.at,
            AuditEvent(
                row.action, row.outcome, row.actor, row.tenant_id, row.request_id, row.detail
            ),
        )
        for row in rows
    ]


def move_event(error: Misplaced) -> AuditEvent:
    """A ciphertext was found in a row or column that it was not written for."""
    detail: dict[str, object] = {"column": error.column}
    return AuditEvent("decrypt", "misplaced", "broker", error.tenant, detail=detail)


def audit_parameters(event: AuditEvent) -> dict[str, object]:
    """What a statement that writes an event beside its own change binds."""
    return {
        "tenant": event.tenant,
        "actor": event.actor,
        "action": event.action,
        "outcome": event.outcome,
        "request_id": event.request_id,
        "detail": json.dumps(event.detail),
    }
