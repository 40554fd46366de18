"""Declares the routes of `web.token_routes` and `web.proxy_route` for the OpenAPI document only."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Never

from fastapi import APIRouter, Header, Path, Query, Security
from pydantic import BaseModel, Field
from starlette.responses import Response

from ignition_broker.broker.allowance.gate import LONGEST_WAIT_SECONDS
from ignition_broker.broker.errors import NotFound
from ignition_broker.grant_ids import DEFAULT_CLIENT
from ignition_broker.web.dependencies import ClientQuery, TenantPath, bearer
from ignition_broker.web.errors import KNOWN_METHODS
from ignition_broker.web.openapi import (
    NO_STORE_HEADER,
    Responses,
    header,
    problem_answer,
    problems,
)
from ignition_broker.web.proxy_route import ROUTE as PROXY_ROUTE
from ignition_broker.web.token_routes import (
    DEFAULT_MIN_TTL_SECONDS,
    FORWARD_AUTH_ROUTE,
    LONGEST_MIN_TTL_SECONDS,
    REFRESH_ROUTE,
    TOKEN_ROUTE,
)

TENANT_CODES = (
    "unauthenticated",
    "forbidden",
    "unknown-tenant",
    "unknown-client",
    "not-found",
    "not-connected",
    "reauthorization-required",
    "not-renewable",
    "too-many-attempts",
    "renewed-too-often",
    "invalid-request",
    "provider-error",
    "provider-unavailable",
    "unavailable",
)

Wait = Annotated[
    int | None,
    Header(
        alias="Broker-Wait",
        ge=0,
        le=LONGEST_WAIT_SECONDS,
        description="Seconds to queue for, where the key has none of the tenant's calls left",
    ),
]

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


@router.get(TOKEN_ROUTE, responses={200: {"headers": NO_STORE_HEADER}, **problems(*TENANT_CODES)})
async def get_token(
    tenant: TenantPath,
    min_ttl: Annotated[int, Query(ge=0, le=LONGEST_MIN_TTL_SECONDS)] = DEFAULT_MIN_TTL_SECONDS,
    client: ClientQuery = DEFAULT_CLIENT,
) -> Token:
    """A token that lives for at least ``min_ttl`` seconds."""
    _not_here()


@router.post(
    REFRESH_ROUTE,
    responses={
        200: {"headers": NO_STORE_HEADER},
        **problems(*TENANT_CODES, "request-timeout", "body-too-large"),
    },
)
async def refresh_token(
    tenant: TenantPath,
    rejected: RejectedToken | None = None,
    client: ClientQuery = DEFAULT_CLIENT,
) -> Token:
    """The current token, renewed first if it is the rejected one; with no body, renewed anyway."""
    _not_here()


@router.get(
    FORWARD_AUTH_ROUTE,
    response_class=Response,
    responses={
        200: {
            "headers": {
                **NO_STORE_HEADER,
                "Authorization": header("The token", pattern="^Bearer "),
                "Broker-Token-SHA256": header("The token's name", pattern="^[0-9a-f]{64}$"),
            }
        },
        **problems(*TENANT_CODES),
    },
)
async def forward_auth(
    tenant: TenantPath,
    rejected_token_sha256: Annotated[Sha256 | None, Query()] = None,
    client: ClientQuery = DEFAULT_CLIENT,
) -> None:
    """The token as the response header ``Authorization``, for a reverse proxy that moves the bytes
    itself; ``Broker-Token-SHA256`` is what to give as ``rejected_token_sha256`` after a 401.

    403 for a key with paths, which `/proxy` alone enforces.
    """
    _not_here()


def _proxied() -> Responses:
    """One status may be an answer of the broker's own or of the upstream's."""
    own = problems(
        *TENANT_CODES,
        "allowance-spent",
        "request-timeout",
        "upstream-unreachable",
        "upstream-timeout",
    )
    own[400] = problem_answer(400, "invalid-request")
    answers: Responses = {
        "default": {
            "description": "The upstream's answer, as it came",
            "content": {"*/*": {}},
            "headers": {
                "Broker-Allowance-Remaining": header(
                    "Calls that the key has left, where they are counted", pattern="^[0-9]+$"
                ),
                "Broker-Allowance-Reset": header(
                    "Seconds until the window ends", pattern="^[0-9]+$"
                ),
            },
        }
    }
    for status, answer in own.items():
        answers[status] = {
            "description": f"{answer['description']}, each with the header Broker-Error; without "
            "it, the upstream's own",
            "content": {**answer["content"], "*/*": {}},
        }
    return answers


def _paged() -> Responses:
    """As `_proxied`; what a stream of pages looks like stands beside it."""
    return {
        **_proxied(),
        200: {
            "description": "The upstream's answer, as it came; with Broker-Paginate the rows of "
            'all pages, one a line, and the line {"broker": …} behind them',
            "content": {"*/*": {}, "application/x-ndjson": {}},
        },
    }


def _declare_proxy() -> None:
    async def proxy(
        tenant: TenantPath, path: Annotated[str, Path()], broker_wait: Wait = None
    ) -> None:
        """The upstream's answer, streamed; after a 401, one refresh and one replay.

        The query is the upstream's: another OAuth client is chosen by ``/c/{client}`` ahead of the
        path, as it can be at every route of a tenant."""
        _not_here()

    async def proxy_get(
        tenant: TenantPath,
        path: Annotated[str, Path()],
        broker_wait: Wait = None,
        broker_paginate: Annotated[
            Literal["all", "all, checkpoints"] | None, Header(alias="Broker-Paginate")
        ] = None,
    ) -> None:
        """The upstream's answer, streamed; after a 401, one refresh and one replay. With
        ``Broker-Paginate: all``, the rows of all pages of a list as NDJSON."""
        _not_here()

    for method in KNOWN_METHODS:
        router.add_api_route(
            PROXY_ROUTE.replace("{path}", "{path:path}"),
            proxy_get if method == "GET" else proxy,
            methods=[method],
            operation_id=f"proxy_{method.lower()}",
            response_class=Response,
            responses=_paged() if method == "GET" else _proxied(),
        )


_declare_proxy()


def _not_here() -> Never:
    """Reached only by another spelling of these paths, which is not a route."""
    raise NotFound("Not Found")
