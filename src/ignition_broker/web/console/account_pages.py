"""The console's page for another account that a reconnect brought: confirm it, or discard it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from ignition_broker.broker.errors import AccountMismatch, InvalidRequest, NotFound
from ignition_broker.broker.grants.tenants import show_tenant
from ignition_broker.grant_ids import DEFAULT_CLIENT
from ignition_broker.web.console.named_grant import named_grant, sign_in_to
from ignition_broker.web.console.return_paths import CONFIRM_ACCOUNT, TENANTS
from ignition_broker.web.console_values import tenant_page
from ignition_broker.web.dependencies import BrokerServices, actor_of
from ignition_broker.web.rendering import console_page, failure

router = APIRouter(include_in_schema=False)

FormText = Annotated[str, Form(max_length=2000)]


@router.get(CONFIRM_ACCOUNT)
async def ask(
    request: Request,
    services: BrokerServices,
    tenant: Annotated[str, Query()] = "",
    client: Annotated[str, Query()] = DEFAULT_CLIENT,
) -> Response:
    """Shows both accounts, and changes nothing."""
    session = await services.sessions.read(request)
    if session is None or not session.is_fresh:
        return sign_in_to(CONFIRM_ACCOUNT, tenant, client)
    grant = named_grant(services.clients, tenant, client)
    summary = await show_tenant(services.database, grant)
    if summary.pending_account is None:
        return _nothing_waits(grant)
    return console_page("confirm_account.html", session=session, here=TENANTS, row=summary)


@router.post(CONFIRM_ACCOUNT)
async def decide(
    request: Request,
    services: BrokerServices,
    tenant: FormText = "",
    client: FormText = DEFAULT_CLIENT,
    account_id: FormText = "",
    decision: FormText = "",
    csrf: FormText = "",
) -> Response:
    """``decision``: ``confirm`` the account of that id, or ``discard`` whichever is held."""
    session = await services.sessions.of_form(request, csrf)
    if decision not in {"confirm", "discard"}:
        raise InvalidRequest("decision: must be confirm or discard.")
    grant = named_grant(services.clients, tenant, client)
    if not session.is_fresh:
        return sign_in_to(CONFIRM_ACCOUNT, tenant, client)
    actor = actor_of(request, session.caller)
    try:
        if decision == "confirm":
            await services.held_grants.confirm(grant, account_id, actor)
        else:
            await services.held_grants.discard(grant, actor)
    except NotFound:
        return _nothing_waits(grant)
    except AccountMismatch as other:
        title = "Another account is held by now"
        return failure(
            409,
            title,
            other.detail,
            "Go back and reload the page.",
            grant=grant,
            error="account-mismatch",
        )
    return RedirectResponse(tenant_page(grant), 303)


def _nothing_waits(grant: str) -> Response:
    return failure(
        404,
        "Nothing waits to be confirmed",
        "The other account was confirmed or discarded, or its week is over.",
        "The tenants say what is connected.",
        grant=grant,
    )
