"""Admin routes for tenants: list, show, connect links, disconnect."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Path, Query, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from ignition_broker.broker.grants.connect_links import create_link, list_links, revoke_link
from ignition_broker.broker.grants.disconnect import disconnect
from ignition_broker.broker.grants.tenants import list_tenants, show_tenant
from ignition_broker.model import (
    TENANT_PATTERN,
    GrantStatus,
    TenantSummary,
)
from ignition_broker.web.admin.router import admin_router
from ignition_broker.web.dependencies import (
    AdminCaller,
    BrokerServices,
    PageLimit,
    TenantPath,
    actor_of,
)
from ignition_broker.web.openapi import NO_STORE_HEADER, problems

router = admin_router()

NO_STORE = {"Cache-Control": "no-store"}


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


@router.get("/tenants", responses=problems("invalid-request"))
async def tenants(
    _caller: AdminCaller,
    services: BrokerServices,
    status: GrantStatus | None = None,
    cursor: Annotated[str, Query(pattern=f"{TENANT_PATTERN}|^$")] = "",
    limit: PageLimit = 100,
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


def _tenant(row: TenantSummary) -> Tenant:
    return Tenant.model_validate(row, from_attributes=True)
