"""The routes of `web.hot_path`, declared for the OpenAPI document alone; none is ever called."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Never

from fastapi import APIRouter, Query, Security
from pydantic import BaseModel, Field

from ignition_broker.web.dependencies import TenantPath, bearer
from ignition_broker.web.hot_path import (
    DEFAULT_MIN_TTL_SECONDS,
    FORWARD_AUTH_ROUTE,
    LONGEST_MIN_TTL_SECONDS,
    REFRESH_ROUTE,
    TOKEN_ROUTE,
)

router = APIRouter(tags=["tokens"], dependencies=[Security(bearer)])

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]


class Token(BaseModel):
    tenant: str
    access_token: str
    token_type: str
    expires_at: datetime
    expires_in: int
    scope: str


class RejectedToken(BaseModel):
    rejected_token_sha256: Sha256


@router.get(TOKEN_ROUTE)
async def get_token(
    tenant: TenantPath,
    min_ttl: Annotated[int, Query(ge=0, le=LONGEST_MIN_TTL_SECONDS)] = DEFAULT_MIN_TTL_SECONDS,
) -> Token:
    """A token that lives for at least ``min_ttl`` seconds."""
    _not_here()


@router.post(REFRESH_ROUTE)
async def refresh_token(tenant: TenantPath, rejected: RejectedToken | None = None) -> Token:
    """The current token, renewed first if it is the rejected one; with no body, renewed anyway."""
    _not_here()


@router.get(FORWARD_AUTH_ROUTE, response_model=None)
async def forward_auth(
    tenant: TenantPath, rejected_token_sha256: Annotated[Sha256 | None, Query()] = None
) -> None:
    """The token as the response header ``Authorization``, for a reverse proxy that moves the bytes
    itself; ``Broker-Token-SHA256`` is what to give as ``rejected_token_sha256`` after a 401.

    403 for a key with paths, which `/proxy` alone enforces.
    """
    _not_here()


def _not_here() -> Never:
    raise AssertionError("the hot path answers this route")
