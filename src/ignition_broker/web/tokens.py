"""Tokens for internal services."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from ignition_broker.model import IssuedToken, Scope
from ignition_broker.web.dependencies import (
    AnyCaller,
    BrokerServices,
    TenantPath,
    actor_of,
    check,
)

router = APIRouter(tags=["tokens"])

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]
NO_STORE = {"Cache-Control": "no-store"}


class Token(BaseModel):
    tenant: str
    access_token: str
    token_type: str
    expires_at: str
    expires_in: int
    scope: str


class RejectedToken(BaseModel):
    rejected_token_sha256: Sha256


@router.get("/token/{tenant}", response_model=Token)
async def get_token(
    request: Request,
    tenant: TenantPath,
    caller: AnyCaller,
    services: BrokerServices,
    min_ttl: Annotated[int, Query(ge=0, le=86400)] = 60,
) -> Response:
    """A token that lives for at least ``min_ttl`` seconds."""
    check(caller, Scope.TOKEN, tenant)
    token = await services.issuer.issue(
        tenant, min_ttl_seconds=min_ttl, actor=actor_of(request, caller)
    )
    return _answer(token, services)


@router.post("/token/{tenant}/refresh", response_model=Token)
async def refresh_token(
    request: Request,
    tenant: TenantPath,
    caller: AnyCaller,
    services: BrokerServices,
    rejected: RejectedToken | None = None,
) -> Response:
    """The current token, renewed first if it is the rejected one; with no body, renewed anyway."""
    actor = actor_of(request, caller)
    if rejected is None:
        check(caller, Scope.ADMIN, tenant)
        token = await services.issuer.renew_anyway(tenant, actor)
    else:
        check(caller, Scope.TOKEN, tenant)
        sha256 = rejected.rejected_token_sha256.lower()
        token = await services.issuer.renew(tenant, rejected_sha256=sha256, actor=actor)
    return _answer(token, services)


@router.get("/forward-auth/{tenant}")
async def forward_auth(
    request: Request,
    tenant: TenantPath,
    caller: AnyCaller,
    services: BrokerServices,
    rejected_token_sha256: Annotated[Sha256 | None, Query()] = None,
) -> Response:
    """The token as a response header, for a reverse proxy that moves the bytes itself."""
    check(caller, Scope.PROXY, tenant)
    actor = actor_of(request, caller)
    if rejected_token_sha256 is None:
        token = await services.issuer.issue(
            tenant, min_ttl_seconds=5, at_worst_seconds=0, actor=actor
        )
    else:
        token = await services.issuer.renew(
            tenant, rejected_sha256=rejected_token_sha256.lower(), actor=actor
        )
    bearer = f"Bearer {token.access_token.reveal()}"
    return Response(headers={**NO_STORE, "Authorization": bearer})


def _answer(token: IssuedToken, services: BrokerServices) -> Response:
    return JSONResponse(
        {
            "tenant": token.tenant,
            "access_token": token.access_token.reveal(),
            "token_type": token.token_type,
            "expires_at": token.expires_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "expires_in": max(0, int(token.seconds_left(services.clock.monotonic()))),
            "scope": token.scope,
        },
        headers=NO_STORE,
    )
