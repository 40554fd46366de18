"""Admin route for events as they happen (server-sent events, WHATWG HTML section 9.2)."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Request
from starlette.responses import Response, StreamingResponse

from ignition_broker.broker.errors import BrokerError
from ignition_broker.model import Scope
from ignition_broker.storage.errors import StorageError
from ignition_broker.web.admin.router import admin_router
from ignition_broker.web.authorization import caller_of
from ignition_broker.web.cursors import number_at
from ignition_broker.web.dependencies import AdminCaller, BrokerServices
from ignition_broker.web.openapi import problems

router = admin_router()


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        **problems("invalid-request"),
    },
)
async def events(
    request: Request,
    _caller: AdminCaller,
    services: BrokerServices,
    last_event_id: Annotated[
        str | None, Header(json_schema_extra={"pattern": "^[0-9]{1,18}$"})
    ] = None,
) -> Response:
    """Server-sent events, from now on or from `Last-Event-ID` on; it ends with the key, and when
    the process stops."""

    async def is_still_admin() -> bool:
        return await _is_admin(request, services)

    stream = await services.event_streams.open(
        number_at("Last-Event-ID", last_event_id), is_still_allowed=is_still_admin
    )
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, 200, headers, "text/event-stream")


async def _is_admin(request: Request, services: BrokerServices) -> bool:
    """Whether the key is still good; not while nobody can tell."""
    try:
        return (await caller_of(request.scope, services.access)).may(Scope.ADMIN)
    except (BrokerError, StorageError):
        return False
