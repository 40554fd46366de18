"""Parameter types, named once and reused by the routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ignition_broker.grant_ids import DEFAULT_CLIENT
from ignition_broker.model import TENANT_PATTERN, Actor, Caller, Scope
from ignition_broker.web.authorization import caller_of, check
from ignition_broker.web.services import Services

bearer = HTTPBearer(
    bearerFormat="ibk_…",
    description="An API key of this broker, or a JWT of an issuer that it trusts",
    auto_error=False,
)


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


BrokerServices = Annotated[Services, Depends(services_of)]
PageLimit = Annotated[int, Query(ge=1, le=1000)]
TenantPath = Annotated[str, Path(pattern=TENANT_PATTERN, examples=["acme"])]
ClientQuery = Annotated[
    str, Query(max_length=64, description="The OAuth client whose grant is meant.")
]


async def _caller_of(
    services: BrokerServices,
    request: Request,
    _shown: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
) -> Caller:
    return await caller_of(request.scope, services.access)


AnyCaller = Annotated[Caller, Depends(_caller_of)]


async def admin_of(caller: AnyCaller) -> Caller:
    check(caller, Scope.ADMIN)
    return caller


AdminCaller = Annotated[Caller, Depends(admin_of)]


async def _grant_of(
    _caller: AdminCaller,
    services: BrokerServices,
    tenant: TenantPath,
    client: ClientQuery = DEFAULT_CLIENT,
) -> str:
    return services.clients.grant_at(tenant, client)


AdminGrant = Annotated[str, Depends(_grant_of)]
"""The id of the grant that the path's tenant has at the client that the query names."""


def actor_of(request: Request, caller: Caller) -> Actor:
    return Actor(caller.name, request.state.request_id)
