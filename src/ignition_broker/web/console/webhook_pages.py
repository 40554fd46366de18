"""The console's pages for notifications: destinations, their secrets and deliveries."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from ignition_broker.broker.admins.sessions import AdminSession
from ignition_broker.broker.errors import Conflict, InvalidRequest, NotFound
from ignition_broker.broker.notifications.bodies import EVENT_TYPES
from ignition_broker.broker.notifications.endpoints import DEFAULT_GRACE_SECONDS
from ignition_broker.storage.webhooks import WebhookRow
from ignition_broker.web.console.return_paths import (
    DELETE_WEBHOOK,
    NEW_WEBHOOK,
    WEBHOOK,
    WEBHOOKS,
    address,
    sign_in_address,
)
from ignition_broker.web.console.typed import typed
from ignition_broker.web.cursors import number_at
from ignition_broker.web.dependencies import BrokerServices, actor_of
from ignition_broker.web.rendering import console_page
from ignition_broker.web.services import Services

router = APIRouter(include_in_schema=False)

DELIVERIES_SHOWN: Final = 50
FormText = Annotated[str, Form(max_length=2000)]


@router.get(WEBHOOKS)
async def webhooks(request: Request, services: BrokerServices) -> Response:
    session = await services.sessions.read(request)
    if session is None:
        return RedirectResponse(sign_in_address(WEBHOOKS), 303)
    return console_page(
        "webhooks.html", session=session, here=WEBHOOKS, webhooks=await services.endpoints.every()
    )


@router.get(NEW_WEBHOOK)
async def new_webhook(
    request: Request, services: BrokerServices, target: Annotated[str, Query(max_length=300)] = ""
) -> Response:
    """Asks for a fresh sign-in first, so that nothing typed is lost to one later."""
    session = await services.sessions.read(request)
    if session is None or not session.is_fresh:
        return RedirectResponse(sign_in_address(address(NEW_WEBHOOK, [("target", target)])), 303)
    return _form(services, session, target, ())


@router.post(NEW_WEBHOOK)
async def create_webhook(
    request: Request,
    services: BrokerServices,
    target: FormText = "",
    types: Annotated[list[str] | None, Form()] = None,
    csrf: FormText = "",
) -> Response:
    session = await services.sessions.of_form(request, csrf)
    target = target.strip()
    if not session.is_fresh:
        # An address that may hold a password does not go into another one.
        return RedirectResponse(sign_in_address(NEW_WEBHOOK), 303)
    chosen = tuple(types or ())
    is_url = "://" in target
    try:
        row, secret = await services.endpoints.create(
            url=target if is_url else None,
            email=None if is_url else target,
            types=None if set(chosen) == set(EVENT_TYPES) else list(chosen),
            actor=actor_of(request, session.caller),
        )
    except (InvalidRequest, Conflict) as error:
        status = 409 if isinstance(error, Conflict) else 422
        return _form(services, session, target, chosen, status=status, error=error.detail)
    if secret is None:
        return RedirectResponse(_address(row.id), 303)
    # No redirect, since the secret is in this answer alone.
    return _secret(session, "The destination is made", row.id, row.shown, secret)


@router.get(WEBHOOK)
async def webhook(
    request: Request, services: BrokerServices, which: str = "", before: str = ""
) -> Response:
    session = await services.sessions.read(request)
    if session is None:
        return RedirectResponse(sign_in_address(_address(which)), 303)
    return await _page(services, session, which, before=before)


@router.post(f"{WEBHOOK}/test")
async def send_test(
    request: Request, services: BrokerServices, which: FormText = "", csrf: FormText = ""
) -> Response:
    session = await services.sessions.of_form(request, csrf)
    await services.endpoints.send_test(typed("which", which))
    notice = "A test event is on its way. Reload the page to see what came of it."
    return await _page(services, session, which, notice=notice)


@router.post(f"{WEBHOOK}/resend")
async def resend(
    request: Request,
    services: BrokerServices,
    which: FormText = "",
    delivery: Annotated[int, Form(ge=1, le=10**18)] = 1,
    csrf: FormText = "",
) -> Response:
    session = await services.sessions.of_form(request, csrf)
    actor = actor_of(request, session.caller)
    await services.endpoints.resend(typed("which", which), delivery, actor)
    return await _page(services, session, which, notice="It is sent again.")


@router.post(f"{WEBHOOK}/secret")
async def new_secret(
    request: Request, services: BrokerServices, which: FormText = "", csrf: FormText = ""
) -> Response:
    session = await services.sessions.of_form(request, csrf)
    if not session.is_fresh:
        return RedirectResponse(sign_in_address(_address(which)), 303)
    row = await _row(services, which)
    secret, until = await services.endpoints.replace_secret(
        which, grace_seconds=DEFAULT_GRACE_SECONDS, actor=actor_of(request, session.caller)
    )
    return _secret(session, "The secret is replaced", which, row.shown, secret, until)


@router.get(DELETE_WEBHOOK)
async def confirm_delete(request: Request, services: BrokerServices, which: str = "") -> Response:
    session = await services.sessions.read(request)
    if session is None or not session.is_fresh:
        return RedirectResponse(sign_in_address(address(DELETE_WEBHOOK, [("which", which)])), 303)
    row = await _row(services, which)
    return console_page(
        "confirm.html",
        session=session,
        here=WEBHOOKS,
        title="Delete this destination?",
        text=f"{row.shown} is told nothing any more, and the log of its deliveries is deleted.",
        action=DELETE_WEBHOOK,
        fields={"which": which},
        button="Delete",
        button_id="delete",
        back=_address(which),
        back_text="Back to the destination",
    )


@router.post(DELETE_WEBHOOK)
async def delete(
    request: Request, services: BrokerServices, which: FormText = "", csrf: FormText = ""
) -> Response:
    session = await services.sessions.of_form(request, csrf)
    if not session.is_fresh:
        return RedirectResponse(sign_in_address(address(DELETE_WEBHOOK, [("which", which)])), 303)
    await services.endpoints.remove(typed("which", which), actor_of(request, session.caller))
    return RedirectResponse(WEBHOOKS, 303)


def _address(id_: str) -> str:
    return address(WEBHOOK, [("which", id_)])


async def _row(services: Services, id_: str) -> WebhookRow:
    for row in await services.endpoints.every():
        if row.id == id_:
            return row
    raise NotFound(f"No destination {id_!r}.")


def _form(
    services: Services,
    session: AdminSession,
    target: str,
    chosen: tuple[str, ...],
    *,
    status: int = 200,
    error: str | None = None,
) -> Response:
    return console_page(
        "new_webhook.html",
        status,
        session=session,
        here=WEBHOOKS,
        target=target,
        chosen=chosen,
        types=EVENT_TYPES,
        has_mail_server=services.endpoints.has_mail_server,
        error=error,
    )


def _secret(
    session: AdminSession, title: str, id_: str, shown: str, secret: str, until: object = None
) -> Response:
    return console_page(
        "webhook_secret.html",
        session=session,
        here=WEBHOOKS,
        title=title,
        which=id_,
        shown=shown,
        secret=secret,
        until=until,
    )


async def _page(
    services: Services,
    session: AdminSession,
    id_: str,
    *,
    before: str = "",
    notice: str | None = None,
) -> Response:
    row = await _row(services, id_)
    found = await services.endpoints.deliveries(
        id_, before=number_at("before", before or None), limit=DELIVERIES_SHOWN + 1
    )
    shown = found[:DELIVERIES_SHOWN]
    older = None
    if len(found) > DELIVERIES_SHOWN:
        older = address(WEBHOOK, [("which", id_), ("before", str(shown[-1].id))])
    return console_page(
        "webhook.html",
        session=session,
        here=WEBHOOKS,
        webhook=row,
        deliveries=shown,
        older=older,
        notice=notice,
        now=services.clock.now(),
    )
