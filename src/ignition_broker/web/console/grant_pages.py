"""The console's pages that begin and end grants: connect, disconnect."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from ignition_broker.broker.admins.sessions import AdminSession
from ignition_broker.broker.grants.disconnect import disconnect
from ignition_broker.broker.grants.tenants import is_connected
from ignition_broker.grant_ids import DEFAULT_CLIENT, client_of, tenant_of
from ignition_broker.model import TENANT_ID_RULE, is_tenant_id
from ignition_broker.web.console.named_grant import named_grant, naming, sign_in_to
from ignition_broker.web.console.return_paths import CONFIRM_DISCONNECT, CONNECT, TENANTS
from ignition_broker.web.console_values import tenant_page
from ignition_broker.web.csrf import FormForged, check_site
from ignition_broker.web.dependencies import BrokerServices, actor_of
from ignition_broker.web.rendering import console_page, failure

router = APIRouter(include_in_schema=False)

FormText = Annotated[str, Form(max_length=2000)]


@router.get(CONNECT)
async def auth(
    request: Request,
    services: BrokerServices,
    tenant: Annotated[str, Query()] = "",
    client: Annotated[str, Query()] = DEFAULT_CLIENT,
) -> Response:
    """Begins to connect a tenant in an admin's browser; asks first if another site linked here."""
    elsewhere = services.own_origin.redirect_if_elsewhere(request.scope)
    if elsewhere is not None:
        return elsewhere
    session = await services.sessions.read(request)
    if session is None:
        return sign_in_to(CONNECT, tenant, client)
    grant = named_grant(services.clients, tenant, client)
    try:
        check_site(request)
    except FormForged:
        # Another site may have sent the browser here, and Ignition might not ask for consent.
        asks = services.identification.asks(grant)
        return console_page("connect.html", session=session, here=TENANTS, grant=grant, asks=asks)
    return await _begin(request, services, grant, session)


@router.post("/connect")
async def connect(
    request: Request,
    services: BrokerServices,
    tenant: FormText = "",
    client: FormText = DEFAULT_CLIENT,
    csrf: FormText = "",
) -> Response:
    """The console's form for a new tenant, and its Connect buttons."""
    session = await services.sessions.of_form(request, csrf)
    if not is_tenant_id(tenant):
        return failure(
            400,
            "This is no tenant id",
            f"A tenant id has {TENANT_ID_RULE}.",
            "Go back and correct it.",
        )
    grant = services.clients.grant_at(tenant, client)
    if services.own_origin.is_elsewhere(request.scope):
        # The form can't be redirected. At our own origin the admin signs in and asks again.
        return services.own_origin.redirect(CONNECT, urlencode(naming(tenant, client)))
    return await _begin(request, services, grant, session)


@router.get("/disconnect")
async def confirm_disconnect(
    request: Request,
    services: BrokerServices,
    tenant: Annotated[str, Query()] = "",
    client: Annotated[str, Query()] = DEFAULT_CLIENT,
) -> Response:
    """Where the sign-in that a disconnect needs leads back to: asks once more, and changes
    nothing."""
    session = await services.sessions.read(request)
    if session is None or not session.is_fresh:
        return sign_in_to(CONFIRM_DISCONNECT, tenant, client)
    grant = named_grant(services.clients, tenant, client)
    return console_page("disconnect.html", session=session, here=TENANTS, grant=grant)


@router.post("/disconnect")
async def disconnect_tenant(
    request: Request,
    services: BrokerServices,
    tenant: FormText = "",
    client: FormText = DEFAULT_CLIENT,
    csrf: FormText = "",
) -> Response:
    session = await services.sessions.of_form(request, csrf)
    grant = named_grant(services.clients, tenant, client)
    if not session.is_fresh:
        return sign_in_to(CONFIRM_DISCONNECT, tenant, client)
    await disconnect(
        services.database,
        services.cipher,
        services.revocations,
        services.held_grants,
        grant,
        actor_of(request, session.caller),
    )
    return RedirectResponse(tenant_page(grant), 303)


async def _begin(
    request: Request, services: BrokerServices, grant: str, session: AdminSession
) -> Response:
    if not session.is_fresh and await is_connected(services.database, grant):
        # This replaces a grant that works, which can't be undone.
        return sign_in_to(CONNECT, tenant_of(grant), client_of(grant))
    browser = services.sessions.browser(request) or services.sessions.new_browser()
    url = await services.connector.begin(
        grant,
        browser=browser,
        actor=actor_of(request, session.caller),
        maker=services.makers.of(session.caller, session.token_hash),
    )
    answer = RedirectResponse(url, 303, {"Cache-Control": "no-store"})
    services.sessions.mark_browser(answer, browser)
    return answer
