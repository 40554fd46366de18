"""Admin routes for API keys: list, create, rotate, revoke."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Path, Request
from pydantic import AwareDatetime, BaseModel, Field
from starlette.responses import JSONResponse, Response

from ignition_broker.broker.callers import api_key_rotation
from ignition_broker.broker.callers import api_keys as broker_api_keys
from ignition_broker.broker.callers.entitlements import HEAVIEST, LARGEST_RESERVE
from ignition_broker.model import (
    ApiKey,
    Scope,
)
from ignition_broker.web.admin.router import NO_STORE, UNREADABLE_BODY, admin_router
from ignition_broker.web.dependencies import AdminCaller, BrokerServices, actor_of
from ignition_broker.web.openapi import NO_STORE_HEADER, problems

router = admin_router()

KEY_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
TENANT_RULE_PATTERN = r"^[a-z0-9*?][a-z0-9._*?-]{0,62}$"
KeyName = Annotated[str, Path(pattern=KEY_NAME_PATTERN)]
Paths = Annotated[
    list[str] | None,
    Field(
        description="What the key may call through the proxy, as rules `METHOD /path` or "
        "`METHOD /prefix*`; the method `*` is any, and GET includes HEAD. null: everything.",
        examples=[["GET /v1/*", "POST /v1/proposals"]],
    ),
]
Weight = Annotated[
    int,
    Field(
        description="Its share of a tenant's calls is in proportion to that, where they are short.",
        json_schema_extra={"minimum": 1, "maximum": HEAVIEST},
    ),
]
Reserve = Annotated[
    int,
    Field(
        description="So many of each tenant's calls are kept for it in each window.",
        json_schema_extra={"minimum": 0, "maximum": LARGEST_RESERVE},
    ),
]


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
    allowance_weight: Weight = 1
    allowance_reserve: Reserve = 0


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
    allowance_weight: Weight
    allowance_reserve: Reserve


class CreatedApiKey(ApiKeyRow):
    key: str


class ApiKeys(BaseModel):
    api_keys: list[ApiKeyRow]


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
        allowance_weight=new.allowance_weight,
        allowance_reserve=new.allowance_reserve,
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


def _api_key(row: ApiKey) -> ApiKeyRow:
    return ApiKeyRow.model_validate(row, from_attributes=True)
