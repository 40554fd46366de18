"""Pages without scripts: sign in, the tenants, a one-time link, what became of a dance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl, quote

from fastapi import APIRouter, Form, Query, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from ignition_broker.broker.access import record_sign_in
from ignition_broker.broker.connect import (
    ConnectFailed,
    LinkForged,
    LinkSpent,
    disconnect,
)
from ignition_broker.broker.directory import list_tenants
from ignition_broker.broker.errors import BrokerError, InvalidRequest, Unauthenticated
from ignition_broker.model import Actor, GrantStatus, is_tenant_id
from ignition_broker.storage.errors import StorageError
from ignition_broker.web.dependencies import BrokerServices, actor_of
from ignition_broker.web.sessions import FormForged, Session, check_csrf

router = APIRouter(include_in_schema=False)

TENANTS_SHOWN = 500
_FOLDER = Path(__file__).parent
_templates = Environment(
    loader=FileSystemLoader(_FOLDER / "templates"), autoescape=True, undefined=StrictUndefined
)
FormText = Annotated[str, Form(max_length=2000)]


def page(name: str, status: int = 200, /, **values: object) -> HTMLResponse:
    html = _templates.get_template(name).render(**values)
    return HTMLResponse(html, status, {"Cache-Control": "no-store"})


@router.get("/style.css")
async def style() -> Response:
    return FileResponse(_FOLDER / "static" / "style.css", media_type="text/css")


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


@router.get("/login")
async def login_page(request: Request, services: BrokerServices, return_to: str = "/") -> Response:
    return _login(request, services, return_to)


@router.post("/login")
async def login(
    request: Request,
    services: BrokerServices,
    key: FormText = "",
    csrf: FormText = "",
    return_to: FormText = "/",
) -> Response:
    browser = services.sessions.browser(request)
    try:
        check_csrf(services.sessions.csrf_for_browser(browser or ""), csrf if browser else None)
        answer = RedirectResponse(_own_path(return_to), 303)
        caller = await services.sessions.sign_in(key.strip(), answer)
        await record_sign_in(services.database, actor_of(request, caller))
    except FormForged as error:
        return _login(request, services, return_to, error.detail, 400)
    except Unauthenticated as error:
        services.journal.note_refusal(
            "sign_in",
            "failed",
            route="/login",
            request_id=request.state.request_id,
            actor=error.key,
        )
        return _login(request, services, return_to, "This is no valid admin key.", 401)
    return answer


@router.post("/logout")
async def logout(request: Request, services: BrokerServices, csrf: FormText = "") -> Response:
    session = await services.sessions.read(request)
    answer = RedirectResponse("/login", 303)
    if session is not None:
        check_csrf(session.csrf_token, csrf)
        services.sessions.sign_out(answer)
        await record_sign_in(services.database, actor_of(request, session.caller), "sign_out")
    return answer


@router.get("/auth")
async def auth(
    request: Request, services: BrokerServices, tenant: Annotated[str, Query()] = ""
) -> Response:
    """Begins a dance in an admin's browser."""
    session = await services.sessions.read(request)
    if session is None:
        return RedirectResponse(f"/login?return_to={quote(f'/auth?tenant={tenant}', safe='')}", 303)
    if not is_tenant_id(tenant):
        raise InvalidRequest(
            "tenant: must be 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or "
            "digit."
        )
    return await _begin(request, services, tenant, actor_of(request, session.caller))


@router.post("/connect")
async def connect(
    request: Request, services: BrokerServices, tenant: FormText = "", csrf: FormText = ""
) -> Response:
    """The console's form for a new tenant, and its Connect buttons."""
    session = await _session(request, services, csrf)
    if not is_tenant_id(tenant):
        return _failure(
            400,
            "This is no tenant id",
            "A tenant id has 1 to 63 of a-z, 0-9, '.', '_' and '-', and begins with a letter or "
            "digit.",
            "Go back and correct it.",
        )
    return await _begin(request, services, tenant, actor_of(request, session.caller))


@router.post("/disconnect")
async def disconnect_tenant(
    request: Request, services: BrokerServices, tenant: FormText = "", csrf: FormText = ""
) -> Response:
    session = await _session(request, services, csrf)
    if not is_tenant_id(tenant):
        raise InvalidRequest("tenant: no tenant id.")
    await disconnect(
        services.database,
        services.cipher,
        services.provider,
        tenant,
        actor_of(request, session.caller),
    )
    return RedirectResponse("/", 303)


@router.get("/connect/{link}")
async def link_page(services: BrokerServices, link: str) -> Response:
    """Changes nothing, since mail scanners fetch links."""
    try:
        found = await services.connector.link(link)
    except (LinkForged, LinkSpent) as error:
        return _link_failure(error)
    return page("link.html", tenant=found.tenant)


@router.post("/connect/{link}")
async def follow_link(request: Request, services: BrokerServices, link: str) -> Response:
    browser = services.sessions.browser(request) or services.sessions.new_browser()
    try:
        url = await services.connector.follow_link(
            link, browser=browser, request_id=request.state.request_id
        )
    except (LinkForged, LinkSpent) as error:
        services.journal.note_refusal(
            "connect",
            "refused",
            route="/connect/{link}",
            request_id=request.state.request_id,
            tenant=error.tenant,
        )
        return _link_failure(error)
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
    except ConnectFailed as failure:
        if failure.tenant is None:
            services.journal.note_refusal(
                "connect", "refused", route="/callback", request_id=request.state.request_id
            )
        return _failure(
            400,
            failure.title,
            failure.detail,
            "Nothing was stored. Begin again from the console or with a new connect link.",
            tenant=failure.tenant,
            error=failure.error,
        )
    except StorageError:
        return _failure(
            503,
            "The connection could not be stored",
            "The database is away.",
            "Begin again in a minute.",
        )
    return page("connected.html", connected=connected)


async def _begin(request: Request, services: BrokerServices, tenant: str, actor: Actor) -> Response:
    browser = services.sessions.browser(request) or services.sessions.new_browser()
    url = await services.connector.begin(tenant, browser=browser, actor=actor)
    answer = RedirectResponse(url, 303, {"Cache-Control": "no-store"})
    services.sessions.mark_browser(answer, browser)
    return answer


async def _session(request: Request, services: BrokerServices, csrf: str) -> Session:
    session = await services.sessions.read(request)
    if session is None:
        raise Unauthenticated("Sign in again: the session has ended.")
    check_csrf(session.csrf_token, csrf)
    return session


def _login(
    request: Request,
    services: BrokerServices,
    return_to: str,
    error: str | None = None,
    status: int = 200,
) -> Response:
    browser = services.sessions.browser(request) or services.sessions.new_browser()
    answer = page(
        "login.html",
        status,
        csrf=services.sessions.csrf_for_browser(browser),
        return_to=_own_path(return_to),
        error=error,
    )
    services.sessions.mark_browser(answer, browser)
    return answer


def _own_path(return_to: str) -> str:
    """Only a path of this service: an absolute URL or ``//host`` would lead elsewhere."""
    is_ours = (
        return_to.startswith("/")
        and not return_to.startswith(("//", "/\\"))
        and return_to.isprintable()
        and "\\" not in return_to
    )
    return return_to if is_ours else "/"


def _link_failure(error: BrokerError) -> Response:
    status = 404 if isinstance(error, LinkForged) else 410
    return _failure(
        status, "This link does not work", error.detail, "Ask whoever sent it for a new one."
    )


def _failure(
    status: int,
    title: str,
    detail: str,
    next_step: str,
    *,
    tenant: str | None = None,
    error: str | None = None,
) -> Response:
    return page(
        "failure.html",
        status,
        title=title,
        detail=detail,
        next_step=next_step,
        tenant=tenant,
        error=error,
    )
