"""The admin JSON API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import AwareDatetime, BaseModel, Field
from starlette.responses import JSONResponse, Response

from ignition_broker.broker.callers import api_key_rotation
from ignition_broker.broker.callers import api_keys as broker_api_keys
from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.broker.grants.connect_links import create_link, list_links, revoke_link
from ignition_broker.broker.grants.disconnect import disconnect
from ignition_broker.broker.grants.tenants import list_audit, list_tenants, show_tenant
from ignition_broker.model import (
    TENANT_PATTERN,
    ApiKey,
    GrantStatus,
    RecordedEvent,
    Scope,
    TenantSummary,
)
from ignition_broker.web.dependencies import AdminCaller, BrokerServices, TenantPath, actor_of
from ignition_broker.web.openapi import NO_STORE_HEADER, problem_answer, problems

router = APIRouter(
    prefix="/admin",
    tags=["admin"],
    responses=problems("unauthenticated", "forbidden", "too-many-attempts", "unavailable"),
)

KEY_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
TENANT_RULE_PATTERN = r"^[a-z0-9*?][a-z0-9._*?-]{0,62}$"
KeyName = Annotated[str, Path(pattern=KEY_NAME_PATTERN)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Paths = Annotated[
    list[str] | None,
    Field(
        description="What the key may call through the proxy, as rules `METHOD /path` or "
        "`METHOD /prefix*`; the method `*` is any, and GET includes HEAD. null: everything.",
        examples=[["GET /v1/*", "POST /v1/proposals"]],
    ),
]
NO_STORE = {"Cache-Control": "no-store"}
# In no encoding of JSON; what can be read and is malformed is 422.
UNREADABLE_BODY = problem_answer(400, "invalid-request")


class Tenant(BaseModel):
    tenant: str
    status: GrantStatus
    scope: str | None
    expires_at: datetime | None
    connected_at: datetime | None
    refreshed_at: datetime | None
    last_error: str | None
    renewable: bool
    refresh_token_expires_at: datetime | None


class TenantPage(BaseModel):
    tenants: list[Tenant]
    next_cursor: str | None


class ConnectLink(BaseModel):
    id: str
    url: str
    expires_at: datetime


class ListedConnectLink(BaseModel):
    """``used_at`` null: it still works, until ``expires_at``."""

    id: str
    expires_at: datetime
    created_by: str
    used_at: datetime | None


class ConnectLinks(BaseModel):
    connect_links: list[ListedConnectLink]


class NewApiKey(BaseModel):
    """Documented here, checked by `check_api_key_request`, which says how to mend it."""

    name: Annotated[str, Field(json_schema_extra={"pattern": KEY_NAME_PATTERN})]
    scopes: Annotated[
        list[str],
        Field(
            json_schema_extra={"minItems": 1, "items": {"enum": [scope.value for scope in Scope]}}
        ),
    ]
    tenants: Annotated[
        list[str],
        Field(
            description="Ids, or patterns such as `beta-*`; may be empty for an admin's key alone.",
            json_schema_extra={"items": {"type": "string", "pattern": TENANT_RULE_PATTERN}},
        ),
    ] = []
    expires_at: AwareDatetime | None = None
    paths: Paths = None


class Rotation(BaseModel):
    grace_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=api_key_rotation.LONGEST_GRACE_SECONDS,
            description="How long the key of before works yet; 0 ends it now.",
        ),
    ] = api_key_rotation.DEFAULT_GRACE_SECONDS
    expires_at: Annotated[
        AwareDatetime | None, Field(description="When the new key ends; null: as the one before.")
    ] = None


class ApiKeyRow(BaseModel):
    name: str
    scopes: list[str]
    tenants: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    paths: Paths
    previous_works_until: datetime | None


class CreatedApiKey(ApiKeyRow):
    key: str


class ApiKeys(BaseModel):
    api_keys: list[ApiKeyRow]


class AuditPage(BaseModel):
    events: list[dict[str, Any]]
    next_cursor: str | None


@router.get("/tenants", responses=problems("invalid-request"))
async def tenants(
    _caller: AdminCaller,
    services: BrokerServices,
    status: GrantStatus | None = None,
    cursor: Annotated[str, Query(pattern=f"{TENANT_PATTERN}|^$")] = "",
    limit: Limit = 100,
) -> TenantPage:
    found = await list_tenants(services.database, after=cursor, status=status, limit=limit + 1)
    page = found[:limit]
    more = page[-1].tenant if len(found) > limit else None
    return TenantPage(tenants=[_tenant(row) for row in page], next_cursor=more)


@router.get(
    "/tenants/{tenant}", responses=problems("unknown-tenant", "not-found", "invalid-request")
)
async def tenant(tenant: TenantPath, _caller: AdminCaller, services: BrokerServices) -> Tenant:
    return _tenant(await show_tenant(services.database, tenant))


@router.post(
    "/tenants/{tenant}/connect-link",
    status_code=201,
    response_model=ConnectLink,
    response_class=JSONResponse,
    responses={201: {"headers": NO_STORE_HEADER}, **problems("not-found", "invalid-request")},
)
async def connect_link(
    request: Request, tenant: TenantPath, caller: AdminCaller, services: BrokerServices
) -> Response:
    """It works once, until the tenant is next connected or disconnected, and ends with the key that
    made it."""
    link = await create_link(
        services.database, tenant, actor_of(request, caller), services.makers.of(caller)
    )
    url = f"{services.public_origin}/connect/{link.token}"
    body = ConnectLink(id=link.id, url=url, expires_at=link.expires_at).model_dump(mode="json")
    return JSONResponse(body, 201, NO_STORE)


@router.get(
    "/tenants/{tenant}/connect-links",
    responses=problems("unknown-tenant", "not-found", "invalid-request"),
)
async def connect_links(
    tenant: TenantPath, _caller: AdminCaller, services: BrokerServices
) -> ConnectLinks:
    """Those that still work and those that were used, the newest first; not those that were
    revoked or have ended unused."""
    found = await list_links(services.database, tenant, services.makers.standing)
    return ConnectLinks(
        connect_links=[
            ListedConnectLink.model_validate(link, from_attributes=True) for link in found
        ]
    )


@router.delete(
    "/tenants/{tenant}/connect-links/{id}",
    status_code=204,
    responses=problems("unknown-tenant", "not-found", "invalid-request"),
)
async def revoke_connect_link(
    request: Request,
    tenant: TenantPath,
    link_id: Annotated[str, Path(alias="id", max_length=64)],
    caller: AdminCaller,
    services: BrokerServices,
) -> None:
    """It answers 410 from now on, and the sign-in that it began connects nothing."""
    await revoke_link(services.database, tenant, link_id, actor_of(request, caller))


@router.post(
    "/tenants/{tenant}/disconnect",
    responses=problems("unknown-tenant", "not-found", "invalid-request"),
)
async def disconnect_tenant(
    request: Request, tenant: TenantPath, caller: AdminCaller, services: BrokerServices
) -> Tenant:
    await disconnect(
        services.database, services.cipher, services.revocations, tenant, actor_of(request, caller)
    )
    return _tenant(await show_tenant(services.database, tenant))


@router.get("/api-keys")
async def api_keys(_caller: AdminCaller, services: BrokerServices) -> ApiKeys:
    return ApiKeys(
        api_keys=[_api_key(row) for row in await broker_api_keys.list_api_keys(services.database)]
    )


@router.post(
    "/api-keys",
    status_code=201,
    response_model=CreatedApiKey,
    response_class=JSONResponse,
    responses={
        201: {"headers": NO_STORE_HEADER},
        400: UNREADABLE_BODY,
        **problems("conflict", "request-timeout", "body-too-large", "invalid-request"),
    },
)
async def create_api_key(
    request: Request, new: NewApiKey, caller: AdminCaller, services: BrokerServices
) -> Response:
    api_key, key = await broker_api_keys.create_api_key(
        services.database,
        services.clock,
        name=new.name,
        scopes=new.scopes,
        tenants=new.tenants,
        expires_at=new.expires_at,
        paths=new.paths,
        actor=actor_of(request, caller),
    )
    body = {**_api_key(api_key).model_dump(mode="json"), "key": key}
    return JSONResponse(body, 201, NO_STORE)


@router.post(
    "/api-keys/{name}/rotate",
    status_code=201,
    response_model=CreatedApiKey,
    response_class=JSONResponse,
    responses={
        201: {"headers": NO_STORE_HEADER},
        400: UNREADABLE_BODY,
        **problems("not-found", "request-timeout", "body-too-large", "invalid-request"),
    },
)
async def rotate_api_key(
    request: Request,
    name: KeyName,
    caller: AdminCaller,
    services: BrokerServices,
    rotation: Rotation | None = None,
) -> Response:
    """A new key of that name; the one before works until the grace ends."""
    rotation = rotation or Rotation()
    api_key, key = await api_key_rotation.rotate_api_key(
        services.database,
        services.clock,
        name,
        grace_seconds=rotation.grace_seconds,
        expires_at=rotation.expires_at,
        actor=actor_of(request, caller),
    )
    services.access.forget(name)
    body = {**_api_key(api_key).model_dump(mode="json"), "key": key}
    return JSONResponse(body, 201, NO_STORE)


@router.delete(
    "/api-keys/{name}", status_code=204, responses=problems("not-found", "invalid-request")
)
async def revoke_api_key(
    request: Request, name: KeyName, caller: AdminCaller, services: BrokerServices
) -> None:
    await broker_api_keys.revoke_api_key(services.database, name, actor_of(request, caller))
    # Other replicas hear of it in a moment; this one's answer says that it is done.
    services.access.forget(name)


@router.get("/audit", responses=problems("invalid-request"))
async def audit(
    _caller: AdminCaller,
    services: BrokerServices,
    tenant: Annotated[str | None, Query(pattern=TENANT_PATTERN)] = None,
    cursor: Annotated[str | None, Query(json_schema_extra={"pattern": "^[0-9]{1,18}$"})] = None,
    limit: Limit = 100,
) -> AuditPage:
    if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise InvalidRequest("cursor: take it from next_cursor of the page before.")
    before = int(cursor) if cursor is not None else None
    found = await list_audit(services.database, tenant=tenant, before=before, limit=limit + 1)
    page = found[:limit]
    more = str(page[-1].id) if len(found) > limit else None
    return AuditPage(events=[_event(row) for row in page], next_cursor=more)


def _tenant(row: TenantSummary) -> Tenant:
    return Tenant.model_validate(row, from_attributes=True)


def _api_key(row: ApiKey) -> ApiKeyRow:
    return ApiKeyRow.model_validate(row, from_attributes=True)


def _event(row: RecordedEvent) -> dict[str, Any]:
    event = row.event
    return {
        "id": row.id,
        "at": row.at,
        "tenant": event.tenant,
        "actor": event.actor,
        "action": event.action,
        "outcome": event.outcome,
        "request_id": event.request_id,
        "detail": event.detail,
    }
