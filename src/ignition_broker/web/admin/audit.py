"""Admin route for the audit trail."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel

from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.broker.grants.tenants import list_audit
from ignition_broker.grant_ids import DEFAULT_CLIENT
from ignition_broker.model import (
    TENANT_PATTERN,
    RecordedEvent,
)
from ignition_broker.web.admin.router import admin_router
from ignition_broker.web.dependencies import AdminCaller, BrokerServices, PageLimit
from ignition_broker.web.openapi import problems

router = admin_router()


class AuditPage(BaseModel):
    events: list[dict[str, Any]]
    next_cursor: str | None


@router.get("/audit", responses=problems("unknown-client", "invalid-request"))
async def audit(
    _caller: AdminCaller,
    services: BrokerServices,
    tenant: Annotated[str | None, Query(pattern=TENANT_PATTERN)] = None,
    client: Annotated[
        str | None, Query(description="Only of this OAuth client; beside tenant alone.")
    ] = None,
    cursor: Annotated[str | None, Query(json_schema_extra={"pattern": "^[0-9]{1,18}$"})] = None,
    limit: PageLimit = 100,
) -> AuditPage:
    if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise InvalidRequest("cursor: take it from next_cursor of the page before.")
    before = int(cursor) if cursor is not None else None
    if client is not None:
        services.clients.checked(client)
        if tenant is None:
            # It would mean to read the whole trail.
            raise InvalidRequest("client: only beside tenant.")
    found = await list_audit(
        services.database, tenant=tenant, client=client, before=before, limit=limit + 1
    )
    page = found[:limit]
    more = str(page[-1].id) if len(found) > limit else None
    return AuditPage(events=[_event(row) for row in page], next_cursor=more)


def _event(row: RecordedEvent) -> dict[str, Any]:
    event = row.event
    return {
        "id": row.id,
        "at": row.at,
        "tenant": event.tenant,
        "client": None if event.tenant is None else event.detail.get("client", DEFAULT_CLIENT),
        "actor": event.actor,
        "action": event.action,
        "outcome": event.outcome,
        "request_id": event.request_id,
        "detail": event.detail,
    }
