"""Admin routes for notifications: destinations and their deliveries.

Over 250 lines: half of them describe bodies.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Path, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from ignition_broker.broker.notifications.bodies import EVENT_TYPES, members_of
from ignition_broker.broker.notifications.endpoints import (
    DEFAULT_GRACE_SECONDS,
    LONGEST_GRACE_SECONDS,
)
from ignition_broker.storage.delivery_log import DeliveryRow
from ignition_broker.storage.webhooks import WebhookRow
from ignition_broker.web.admin.router import NO_STORE, UNREADABLE_BODY, admin_router
from ignition_broker.web.cursors import number_at
from ignition_broker.web.dependencies import (
    AdminCaller,
    BrokerServices,
    PageLimit,
    actor_of,
)
from ignition_broker.web.openapi import NO_STORE_HEADER, problems

router = admin_router()

WEBHOOK_PATTERN = r"^[a-z]+_[0-9a-f]{20}$"
WebhookId = Annotated[str, Path(pattern=WEBHOOK_PATTERN)]
DeliveryId = Annotated[int, Path(ge=1, le=10**18)]


class NewWebhook(BaseModel):
    """Either ``url`` or ``email``. Checked below, which says how to mend it."""

    url: Annotated[
        str | None,
        Field(description="https; `slack+https://…` for a Slack-compatible webhook."),
    ] = None
    email: str | None = None
    types: Annotated[
        list[str] | None,
        Field(
            description="Of the events to send; null: all.",
            json_schema_extra={"items": {"enum": list(EVENT_TYPES)}},
        ),
    ] = None


class SecretRotation(BaseModel):
    grace_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=LONGEST_GRACE_SECONDS,
            strict=True,
            description="How long the secret of before signs beside the new one.",
        ),
    ] = DEFAULT_GRACE_SECONDS


class Webhook(BaseModel):
    """``url``: without what may be secret in it, or the e-mail address. ``waiting``: deliveries."""

    id: str
    kind: str
    url: str
    types: list[str] | None
    created_at: datetime
    created_by: str
    from_settings: bool
    previous_secret_until: datetime | None
    waiting: int


class CreatedWebhook(Webhook):
    """``secret``: signs what is sent; null for kinds that are not signed."""

    secret: str | None


class Webhooks(BaseModel):
    webhooks: list[Webhook]


class NewSecret(BaseModel):
    secret: str
    previous_secret_until: datetime


class Delivery(BaseModel):
    id: int
    event_id: str
    type: str
    tenant: str | None
    client: str
    at: datetime
    state: str
    tries: int
    next_try_at: datetime | None
    tried_at: datetime | None
    settled_at: datetime | None
    http_status: int | None
    error: str | None


class Deliveries(BaseModel):
    deliveries: list[Delivery]
    next_cursor: str | None


class SentTest(BaseModel):
    event_id: str


@router.get("/webhooks")
async def list_webhooks(_caller: AdminCaller, services: BrokerServices) -> Webhooks:
    return Webhooks(webhooks=[_webhook(row) for row in await services.endpoints.every()])


@router.post(
    "/webhooks",
    status_code=201,
    response_model=CreatedWebhook,
    response_class=JSONResponse,
    responses={
        201: {"headers": NO_STORE_HEADER},
        400: UNREADABLE_BODY,
        **problems("conflict", "request-timeout", "body-too-large", "invalid-request"),
    },
)
async def create_webhook(
    request: Request, new: NewWebhook, caller: AdminCaller, services: BrokerServices
) -> Response:
    """The secret is shown this once."""
    row, secret = await services.endpoints.create(
        url=new.url, email=new.email, types=new.types, actor=actor_of(request, caller)
    )
    body = {**_webhook(row).model_dump(mode="json"), "secret": secret}
    return JSONResponse(body, 201, NO_STORE)


@router.delete(
    "/webhooks/{webhook}",
    status_code=204,
    responses=problems("not-found", "conflict", "invalid-request"),
)
async def delete_webhook(
    request: Request, webhook: WebhookId, caller: AdminCaller, services: BrokerServices
) -> None:
    """Its deliveries go with it."""
    await services.endpoints.remove(webhook, actor_of(request, caller))


@router.post(
    "/webhooks/{webhook}/secret",
    status_code=201,
    response_model=NewSecret,
    response_class=JSONResponse,
    responses={
        201: {"headers": NO_STORE_HEADER},
        400: UNREADABLE_BODY,
        **problems("not-found", "conflict", "request-timeout", "body-too-large", "invalid-request"),
    },
)
async def rotate_webhook_secret(
    request: Request,
    webhook: WebhookId,
    caller: AdminCaller,
    services: BrokerServices,
    rotation: SecretRotation | None = None,
) -> Response:
    """A new secret; until the grace ends, the one before signs too."""
    secret, until = await services.endpoints.replace_secret(
        webhook,
        grace_seconds=(rotation or SecretRotation()).grace_seconds,
        actor=actor_of(request, caller),
    )
    body = NewSecret(secret=secret, previous_secret_until=until).model_dump(mode="json")
    return JSONResponse(body, 201, NO_STORE)


@router.post(
    "/webhooks/{webhook}/test", status_code=202, responses=problems("not-found", "invalid-request")
)
async def send_test(webhook: WebhookId, _caller: AdminCaller, services: BrokerServices) -> SentTest:
    """Has a test event delivered; the list of deliveries says what came of it."""
    return SentTest(event_id=await services.endpoints.send_test(webhook))


@router.get("/webhooks/{webhook}/deliveries", responses=problems("not-found", "invalid-request"))
async def list_deliveries(
    webhook: WebhookId,
    _caller: AdminCaller,
    services: BrokerServices,
    cursor: Annotated[str | None, Query(json_schema_extra={"pattern": "^[0-9]{1,18}$"})] = None,
    limit: PageLimit = 100,
) -> Deliveries:
    """The newest first, for seven days. ``state``: `waiting`, `taken` or `given_up`."""
    found = await services.endpoints.deliveries(
        webhook, before=number_at("cursor", cursor), limit=limit + 1
    )
    page = found[:limit]
    more = str(page[-1].id) if len(found) > limit else None
    return Deliveries(deliveries=[_delivery(row) for row in page], next_cursor=more)


@router.post(
    "/webhooks/{webhook}/deliveries/{delivery}/resend",
    status_code=204,
    responses=problems("not-found", "invalid-request"),
)
async def resend_delivery(
    request: Request,
    webhook: WebhookId,
    delivery: DeliveryId,
    caller: AdminCaller,
    services: BrokerServices,
) -> None:
    """Sends the event again, with the same id. One that still waits is left alone."""
    await services.endpoints.resend(webhook, delivery, actor_of(request, caller))


def _webhook(row: WebhookRow) -> Webhook:
    return Webhook(
        id=row.id,
        kind=row.kind,
        url=row.shown,
        types=None if row.types is None else list(row.types),
        created_at=row.created_at,
        created_by=row.created_by,
        from_settings=row.is_from_settings,
        previous_secret_until=row.previous_until,
        waiting=row.waiting,
    )


def _delivery(row: DeliveryRow) -> Delivery:
    about = members_of(row.event)["data"]
    return Delivery(
        id=row.id,
        event_id=row.event.name,
        type=row.event.type,
        tenant=about["tenant"],
        client=about["client"],
        at=row.event.at,
        state=row.state,
        tries=row.tries,
        next_try_at=row.next_try_at,
        tried_at=row.tried_at,
        settled_at=row.settled_at,
        http_status=row.http_status,
        error=row.error,
    )
