"""Admin routes for connect links: make, list, revoke."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Path, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.broker.grants.connect_links import (
    UNDESCRIBED,
    create_link,
    list_links,
    revoke_link,
)
from ignition_broker.return_addresses import (
    LONGEST_ADDRESS,
    ReturnAddressRefused,
    check_return_address,
)
from ignition_broker.web.admin.router import (
    ANY_GRANT,
    NO_STORE,
    ONE_GRANT,
    UNREADABLE_BODY,
    admin_router,
)
from ignition_broker.web.admin.tenant_bodies import TenantDescription
from ignition_broker.web.dependencies import AdminCaller, AdminGrant, BrokerServices, actor_of
from ignition_broker.web.openapi import NO_STORE_HEADER, problems

router = admin_router()


class NewConnectLink(TenantDescription):
    """Checked by `return_addresses`, which says how to mend it."""

    return_to: Annotated[
        str | None,
        Field(
            description="Where the link's pages lead back to, at one of BROKER_RETURN_ORIGINS. "
            "The page that opens the link in a pop-up must be of the same origin.",
            examples=["https://app.example.com/settings/ignition"],
            json_schema_extra={"maxLength": LONGEST_ADDRESS},
        ),
    ] = None


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


@router.post(
    "/tenants/{tenant}/connect-link",
    status_code=201,
    response_model=ConnectLink,
    response_class=JSONResponse,
    responses={
        201: {"headers": NO_STORE_HEADER},
        400: UNREADABLE_BODY,
        **ANY_GRANT,
        **problems("request-timeout", "body-too-large"),
    },
)
async def connect_link(
    request: Request,
    grant: AdminGrant,
    caller: AdminCaller,
    services: BrokerServices,
    described: NewConnectLink | None = None,
) -> Response:
    """It works once, until the tenant is next connected or disconnected, and ends with the key that
    made it. A body sets the tenant's name and labels, as PUT does, and where the link's pages lead
    back to."""
    return_to = None if described is None else described.return_to
    if return_to is not None:
        try:
            check_return_address(return_to, services.public_pages.origins)
        except ReturnAddressRefused as error:
            raise InvalidRequest(f"return_to: {error}.", tenant=grant) from None
    link = await create_link(
        services.database,
        grant,
        actor_of(request, caller),
        services.makers.of(caller),
        UNDESCRIBED if described is None else described.description(),
        return_to,
    )
    url = f"{services.public_origin}/connect/{link.token}"
    body = ConnectLink(id=link.id, url=url, expires_at=link.expires_at).model_dump(mode="json")
    return JSONResponse(body, 201, NO_STORE)


@router.get(
    "/tenants/{tenant}/connect-links",
    responses=ONE_GRANT,
)
async def connect_links(grant: AdminGrant, services: BrokerServices) -> ConnectLinks:
    """Those that still work and those that were used, the newest first; not those that were
    revoked or have ended unused."""
    found = await list_links(services.database, grant, services.makers.standing)
    return ConnectLinks(
        connect_links=[
            ListedConnectLink.model_validate(link, from_attributes=True) for link in found
        ]
    )


@router.delete(
    "/tenants/{tenant}/connect-links/{id}",
    status_code=204,
    responses=ONE_GRANT,
)
async def revoke_connect_link(
    request: Request,
    grant: AdminGrant,
    link_id: Annotated[str, Path(alias="id", max_length=64)],
    caller: AdminCaller,
    services: BrokerServices,
) -> None:
    """It answers 410 from now on, and the sign-in that it began connects nothing."""
    await revoke_link(services.database, grant, link_id, actor_of(request, caller))
