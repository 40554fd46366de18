"""The console's pages for tenants: the list, and one tenant with all that is known of it."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from ignition_broker.broker.admins.sessions import AdminSession
from ignition_broker.broker.errors import BrokerError, NotFound
from ignition_broker.broker.explanations.explain import explain
from ignition_broker.broker.grants.connect_links import create_link, list_links, revoke_link
from ignition_broker.broker.grants.tenants import (
    list_audit,
    list_tenants,
    search_audit,
    show_tenant,
)
from ignition_broker.grant_ids import DEFAULT_CLIENT, client_of, tenant_of
from ignition_broker.model import GrantStatus
from ignition_broker.storage.audit_search import Criteria
from ignition_broker.tenant_labels import LabelRefused, parse_labels
from ignition_broker.web.console.named_grant import named_grant, sign_in_to
from ignition_broker.web.console.return_paths import TENANT, TENANTS, address, sign_in_address
from ignition_broker.web.console.typed import typed
from ignition_broker.web.console_values import tenant_page
from ignition_broker.web.cursors import cursor_at, grant_at, is_cursor
from ignition_broker.web.dependencies import BrokerServices, actor_of
from ignition_broker.web.rendering import console_page
from ignition_broker.web.services import Services

router = APIRouter(include_in_schema=False)

TENANTS_SHOWN: Final = 100
REFRESHES_SHOWN: Final = 60
EVENTS_SHOWN: Final = 20
LONGEST_SEARCH: Final = 100
FormText = Annotated[str, Form(max_length=2000)]


@router.get(TENANTS)
async def tenants(
    request: Request,
    services: BrokerServices,
    after: str = "",
    status: str = "",
    q: Annotated[str, Query(max_length=LONGEST_SEARCH)] = "",
    label: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """What can't be a status or a label is said on the page, which then shows nothing."""
    asked = [("status", status), ("q", q), ("label", label)]
    session = await services.sessions.read(request)
    if session is None:
        return RedirectResponse(sign_in_address(address(TENANTS, [*asked, ("after", after)])), 303)
    error = None
    labels: dict[str, str] = {}
    wanted = GrantStatus(status) if status in set(GrantStatus) else None
    beginning = typed("q", q)
    try:
        wanted_label = typed("label", label)
        labels = parse_labels([wanted_label] if wanted_label else [], "label")
    except LabelRefused as refused:
        error = f"{refused}."
    found = (
        []
        if error
        else await list_tenants(
            services.database,
            after=grant_at(after) if is_cursor(after) else "",
            status=wanted,
            labels=labels,
            limit=TENANTS_SHOWN + 1,
            beginning=beginning,
        )
    )
    shown, more = found[:TENANTS_SHOWN], None
    if len(found) > TENANTS_SHOWN:
        kept = [(name, value) for name, value in asked if value]
        more = address(TENANTS, [*kept, ("after", cursor_at(shown[-1].grant))])
    return console_page(
        "tenants.html",
        422 if error else 200,
        session=session,
        here=TENANTS,
        tenants=shown,
        more=more,
        error=error,
        q=q,
        status=status,
        label=label,
        clients=services.clients.all,
        now=services.clock.now(),
        asks=services.identification.asks_any,
    )


@router.get(TENANT)
async def tenant(
    request: Request, services: BrokerServices, tenant: str = "", client: str = DEFAULT_CLIENT
) -> Response:
    session = await services.sessions.read(request)
    if session is None:
        return sign_in_to(TENANT, tenant, client)
    return await _page(services, session, named_grant(services.clients, tenant, client))


@router.post(f"{TENANT}/refresh")
async def refresh(
    request: Request,
    services: BrokerServices,
    tenant: FormText = "",
    client: FormText = DEFAULT_CLIENT,
    csrf: FormText = "",
) -> Response:
    """Renews the token now, whatever its state."""
    session = await services.sessions.of_form(request, csrf)
    grant = named_grant(services.clients, tenant, client)
    try:
        await services.issuer.renew_anyway(grant, actor_of(request, session.caller))
    except NotFound:
        raise
    except BrokerError as error:
        return await _page(
            services, session, grant, status=409, error=f"It was not refreshed: {error.detail}"
        )
    return await _page(services, session, grant, notice="A new token was fetched and stored.")


@router.post(f"{TENANT}/link")
async def make_link(
    request: Request,
    services: BrokerServices,
    tenant: FormText = "",
    client: FormText = DEFAULT_CLIENT,
    csrf: FormText = "",
) -> Response:
    session = await services.sessions.of_form(request, csrf)
    grant = named_grant(services.clients, tenant, client)
    link = await create_link(
        services.database,
        grant,
        actor_of(request, session.caller),
        services.makers.of(session.caller, session.token_hash),
    )
    # No redirect, since the link is in this answer alone.
    url = f"{services.public_origin}/connect/{link.token}"
    return console_page(
        "tenant_link.html", session=session, here=TENANTS, grant=grant, link=link, url=url
    )


@router.post(f"{TENANT}/link/revoke")
async def end_link(
    request: Request,
    services: BrokerServices,
    tenant: FormText = "",
    client: FormText = DEFAULT_CLIENT,
    link: FormText = "",
    csrf: FormText = "",
) -> Response:
    session = await services.sessions.of_form(request, csrf)
    grant = named_grant(services.clients, tenant, client)
    actor = actor_of(request, session.caller)
    await revoke_link(services.database, grant, typed("link", link), actor)
    return RedirectResponse(tenant_page(grant), 303)


async def _page(
    services: Services,
    session: AdminSession,
    grant: str,
    *,
    status: int = 200,
    notice: str | None = None,
    error: str | None = None,
) -> Response:
    database = services.database
    row = await show_tenant(database, grant)
    explanation = await explain(database, services.cipher, grant)
    refreshes = await search_audit(
        database,
        Criteria(tenant=tenant_of(grant), action="refresh"),
        before=None,
        limit=REFRESHES_SHOWN,
    )
    events = await list_audit(
        database,
        tenant=tenant_of(grant),
        client=client_of(grant),
        before=None,
        limit=EVENTS_SHOWN,
    )
    return console_page(
        "tenant.html",
        status,
        session=session,
        here=TENANTS,
        row=row,
        explanation=explanation,
        refreshes=[
            each
            for each in reversed(refreshes.events)
            if each.event.detail.get("client", DEFAULT_CLIENT) == client_of(grant)
        ],
        events=events,
        links=await list_links(database, grant, services.makers.standing),
        allowance=None if services.allowance is None else await services.allowance.use(grant),
        clients=services.clients.all,
        now=services.clock.now(),
        asks=services.identification.asks(grant),
        notice=notice,
        error=error,
    )
