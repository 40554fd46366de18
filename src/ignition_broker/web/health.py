"""`/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

from functools import cache
from typing import Literal

import structlog
from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ignition_broker.problems import NOT_READY
from ignition_broker.storage.errors import SchemaUnfit, SessionsNotKept, StorageError
from ignition_broker.web.dependencies import BrokerServices
from ignition_broker.web.errors import problem
from ignition_broker.web.openapi import problems

log = structlog.get_logger(__name__)

router = APIRouter(tags=["health"])


class Ready(BaseModel):
    """``note``: something that an operator should know although the process is ready."""

    status: Literal["ready"]
    note: str | None = None


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "alive"}


@router.get(
    "/readyz",
    response_model=Ready,
    response_class=JSONResponse,
    responses=problems("unavailable"),
)
async def readyz(request: Request, services: BrokerServices) -> Response:
    """Whether the database answers and has the schema that this code was written for, and this
    process has not been told to stop."""
    if services.stopping.has_begun:
        return _not_ready(request, "this process has been told to stop")
    try:
        version = await services.database.schema_version()
    except StorageError as error:
        reason = _why(error)
    else:
        if version is not None and version >= services.schema_version:
            return await _readable(request, services, version)
        reason = f"the schema is {version}, not {services.schema_version}; run: migrate"
    return _not_ready(request, reason)


async def _readable(request: Request, services: BrokerServices, version: str) -> Response:
    """Checks that the keys open all grants. `serve` checks it too, but Postgres may have been away
    then."""
    try:
        is_readable = await services.encryption_keys.passes()
    except StorageError as error:
        return _not_ready(request, _why(error))
    if not is_readable:
        return _not_ready(request, "a stored grant needs a key that is missing; see: keys status")
    if version == services.schema_version:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "ready", "note": _newer(version, services.schema_version)})


@cache
def _newer(found: str, known: str) -> str:
    """The note on a newer schema; logs it once."""
    log.warning("schema_newer", found=found, known=known)
    return f"the schema is {found}, newer than {known}, which this release was made for"


def _why(error: StorageError) -> str:
    if isinstance(error, SchemaUnfit | SessionsNotKept):
        return str(error)
    return f"the database is away: {error}"


def _not_ready(request: Request, reason: str) -> Response:
    return problem(
        NOT_READY, reason, request_id=request.state.request_id, headers={"Retry-After": "1"}
    )


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    registry = request.app.state.metrics.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
