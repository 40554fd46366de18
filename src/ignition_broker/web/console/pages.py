"""The console's tenants, the page behind a connect link, and the result of connecting."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import FileResponse, RedirectResponse, Response

from ignition_broker.broker.admins.sessions import AdminSession
from ignition_broker.broker.errors import BrokerError, InvalidRequest
from ignition_broker.broker.grants.connect_links import LinkForged, LinkSpent
from ignition_broker.broker.grants.connect_outcomes import ConnectFailed, StillConnecting
from ignition_broker.broker.grants.disconnect import disconnect
from ignition_broker.broker.grants.tenants import is_connected, list_tenants
from ignition_broker.model import TENANT_ID_RULE, GrantStatus, is_tenant_id
from ignition_broker.storage.errors import StorageError
from ignition_broker.web.console.return_paths import (
    CONFIRM_DISCONNECT,
    CONNECT,
    address,
    sign_in_address,
)
from ignition_broker.web.csrf import FormForged, check_site
from ignition_broker.web.dependencies import BrokerServices, actor_of
from ignition_broker.web.rendering import FOLDER, failure, page

router = APIRouter(include_in_schema=False)

TENANTS_SHOWN = 500
FormText = Annotated[str, Form(max_length=2000)]


@router.get("/style.css")
async def style() -> Response:
    return FileResponse(FOLDER / "static" / "style.css", media_type="text/css")


@router.get("/")
async def console(
    request: Request, services: BrokerServices, after: str = "", status: str = ""
) -> Response:
    session = await services.sessions.read(request)
    if session is None:
        return RedirectResponse("/login", 303)
    wanted = GrantStatus(status) if status in set(GrantStatus) else None
    if after and not is_tenant_id(after):
        after = ""
    found = await list_tenants(
        services.database, after=after, status=wanted, limit=TENANTS_SHOWN + 1
    )
    shown = found[:TENANTS_SHOWN]
    return page(
        "console.html",
        session=session,
        tenants=shown,
        after=shown[-1].tenant if len(found) > TENANTS_SHOWN else None,
        now=services.clock.now(),
    )


@router.get(CONNECT)
async def auth(
    request: Request, services: BrokerServices, tenant: Annotated[str, Query()] = ""
) -> Response:
    """Begins to connect a tenant in an admin's browser; asks first if another site linked here."""
    elsewhere = services.own_origin.redirect_if_elsewhere(request.scope)
    if elsewhere is not None:
        return elsewhere
    session = await services.sessions.read(request)
    if session is None:
        return _sign_in_to(CONNECT, tenant)
    if not is_tenant_id(tenant):
        raise InvalidRequest(f"tenant: must be {TENANT_ID_RULE}.")
    try:
        check_site(request)
    except FormForged:
        # Another site may have sent the browser here, and Ignition might not ask for consent.
        return page("connect.html", session=session, tenant=tenant)
    return await _begin(request, services, tenant, session)


@router.post("/connect")
async def connect(
    request: Request, services: BrokerServices, tenant: FormText = "", csrf: FormText = ""
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
    if services.own_origin.is_elsewhere(request.scope):
        # The form can't be redirected. At our own origin the admin signs in and asks again.
        return services.own_origin.redirect(CONNECT, urlencode({"tenant": tenant}))
    return await _begin(request, services, tenant, session)


@router.get("/disconnect")
async def confirm_disconnect(
    request: Request, services: BrokerServices, tenant: Annotated[str, Query()] = ""
) -> Response:
    """Where the sign-in that a disconnect needs leads back to: asks once more, and changes
    nothing."""
    session = await services.sessions.read(request)
    if session is None or not session.is_fresh:
        return _sign_in_to(CONFIRM_DISCONNECT, tenant)
    if not is_tenant_id(tenant):
        raise InvalidRequest("tenant: no tenant id.")
    return page("disconnect.html", session=session, tenant=tenant)


@router.post("/disconnect")
async def disconnect_tenant(
    request: Request, services: BrokerServices, tenant: FormText = "", csrf: FormText = ""
) -> Response:
    session = await services.sessions.of_form(request, csrf)
    if not is_tenant_id(tenant):
        raise InvalidRequest("tenant: no tenant id.")
    if not session.is_fresh:
        return _sign_in_to(CONFIRM_DISCONNECT, tenant)
    await disconnect(
        services.database,
        services.cipher,
        services.revocations,
        tenant,
        actor_of(request, session.caller),
    )
    return RedirectResponse("/", 303)


@router.get("/connect/{link}")
async def link_page(request: Request, services: BrokerServices, link: str) -> Response:
    """The page behind a connect link. It changes nothing, since mail scanners fetch links."""
    elsewhere = services.own_origin.redirect_if_elsewhere(request.scope)
    if elsewhere is not None:
        return elsewhere
    try:
        found = await services.connector.link(link)
    except (LinkForged, LinkSpent) as error:
        return _link_failure(error)
    return page("link.html", tenant=found.tenant)


@router.post("/connect/{link}")
async def follow_link(request: Request, services: BrokerServices, link: str) -> Response:
    elsewhere = services.own_origin.redirect_if_elsewhere(request.scope)
    if elsewhere is not None:
        # Back to the link's page at our own origin, where it is to be clicked once more; it is not
        # spent yet.
        return elsewhere
    browser = services.sessions.browser(request) or services.sessions.new_browser()
    try:
        check_site(request)
        url = await services.connector.follow_link(
            link, browser=browser, request_id=request.state.request_id
        )
    except (LinkForged, LinkSpent) as error:
        services.audit_recorder.record_denial(
            "connect",
            "refused",
            route="/connect/{link}",
            request_id=request.state.request_id,
            tenant=error.tenant,
        )
        return _link_failure(error)
    except FormForged as error:
        return failure(400, "This link was not clicked here", error.detail, "Open it yourself.")
    answer = RedirectResponse(url, 303, {"Cache-Control": "no-store"})
    services.sessions.mark_browser(answer, browser)
    return answer


@router.get("/callback")
async def callback(request: Request, services: BrokerServices) -> Response:
    query = parse_qsl(
        request.scope["query_string"].decode("latin-1"), keep_blank_values=True, errors="replace"
    )
    try:
        connected = await services.connector.finish(
            query,
            browser=services.sessions.browser(request),
            request_id=request.state.request_id,
        )
    except ConnectFailed as failed:
        if failed.tenant is None:
            services.audit_recorder.record_denial(
                "connect", "refused", route="/callback", request_id=request.state.request_id
            )
        return failure(
            400,
            failed.title,
            failed.detail,
            "Nothing was stored. Begin again from the console or with a new connect link.",
            tenant=failed.tenant,
            error=failed.error,
        )
    except StillConnecting as waiting:
        return page("connecting.html", 202, tenant=waiting.tenant)
    except StorageError:
        return failure(
            503,
            "The connection could not be stored",
            "The database is away.",
            "Begin again in a minute.",
        )
    return page("connected.html", connected=connected)


async def _begin(
    request: Request, services: BrokerServices, tenant: str, session: AdminSession
) -> Response:
    if not session.is_fresh and await is_connected(services.database, tenant):
        # This replaces a grant that works, which can't be undone.
        return _sign_in_to(CONNECT, tenant)
    browser = services.sessions.browser(request) or services.sessions.new_browser()
    url = await services.connector.begin(
        tenant,
        browser=browser,
        actor=actor_of(request, session.caller),
        maker=services.makers.of(session.caller, session.token_hash),
    )
    answer = RedirectResponse(url, 303, {"Cache-Control": "no-store"})
    services.sessions.mark_browser(answer, browser)
    return answer


def _sign_in_to(path: str, tenant: str) -> Response:
    return RedirectResponse(sign_in_address(address(path, [("tenant", tenant)])), 303)


def _link_failure(error: BrokerError) -> Response:
    status = 404 if isinstance(error, LinkForged) else 410
    return failure(
        status, "This link does not work", error.detail, "Ask whoever sent it for a new one."
    )
