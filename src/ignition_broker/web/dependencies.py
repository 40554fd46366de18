"""Parameter types, named once and reused by the routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ignition_broker.broker.errors import Forbidden, Unauthenticated
from ignition_broker.model import TENANT_PATTERN, Actor, Caller, Scope
from ignition_broker.web.services import Services

bearer = HTTPBearer(bearerFormat="ibk_…", description="An API key of this broker", auto_error=False)


def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


BrokerServices = Annotated[Services, Depends(services_of)]
TenantPath = Annotated[str, Path(pattern=TENANT_PATTERN, examples=["acme"])]


async def caller_of(
    services: BrokerServices,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
) -> Caller:
    if credentials is None:
        raise Unauthenticated("Show an API key: Authorization: Bearer ibk_…")
    key = credentials.credentials
    return services.access.held(key) or await services.access.authenticate(key)


AnyCaller = Annotated[Caller, Depends(caller_of)]


def check(caller: Caller, scope: Scope, tenant: str | None = None) -> None:
    """Raises `Forbidden`."""
    if not caller.may(scope):
        raise Forbidden(f"This needs an API key with the scope {scope.value}.", tenant=tenant)
    if tenant is not None and not caller.covers(tenant):
        raise Forbidden("This API key does not cover this tenant.", tenant=tenant)


async def admin_of(caller: AnyCaller) -> Caller:
    check(caller, Scope.ADMIN)
    return caller


AdminCaller = Annotated[Caller, Depends(admin_of)]


def actor_of(request: Request, caller: Caller) -> Actor:
    return Actor(caller.name, request.state.request_id)
