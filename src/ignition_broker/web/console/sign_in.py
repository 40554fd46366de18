"""Signs admins in, by a key or by single sign-on, and out."""

from __future__ import annotations

import math
from typing import Annotated
from urllib.parse import parse_qsl, urlencode

import structlog
from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from ignition_broker.broker.admins.single_sign_on import SingleSignOn
from ignition_broker.broker.errors import (
    BrokerError,
    IdentityProviderUnavailable,
    NotAnAdmin,
    NotFound,
    SignOnFailed,
    TooManyAttempts,
    Unauthenticated,
)
from ignition_broker.storage.errors import StorageError
from ignition_broker.web.console.return_paths import (
    may_need_a_fresh_sign_in,
    needs_a_fresh_sign_in,
    own_page,
)
from ignition_broker.web.csrf import FormForged
from ignition_broker.web.dependencies import BrokerServices
from ignition_broker.web.own_origin import has_moved
from ignition_broker.web.rendering import failure, page
from ignition_broker.web.services import Services

log = structlog.get_logger(__name__)

router = APIRouter(include_in_schema=False)

FormText = Annotated[str, Form(max_length=4000)]


@router.get("/login")
async def login_page(request: Request, services: BrokerServices, return_to: str = "/") -> Response:
    return await _login(request, services, return_to)


@router.post("/login")
async def login(
    request: Request,
    services: BrokerServices,
    key: FormText = "",
    csrf: FormText = "",
    return_to: FormText = "/",
) -> Response:
    answer = RedirectResponse(own_page(return_to), 303)
    try:
        services.sessions.check_browser_form(request, csrf)
        await services.sessions.sign_in_by_key(request, answer, key.strip())
    except FormForged as error:
        return await _login(request, services, return_to, error.detail, 400)
    except Unauthenticated as error:
        request_id = request.state.request_id
        log.warning("sign_in_refused", request_id=request_id)
        services.audit_recorder.record_denial(
            "sign_in", "failed", route="/login", request_id=request_id, actor=error.key
        )
        return await _login(request, services, return_to, "This is no valid admin key.", 401)
    except TooManyAttempts as error:
        refusal = await _login(request, services, return_to, error.detail, 429)
        refusal.headers["Retry-After"] = str(math.ceil(error.retry_after_seconds))
        return refusal
    return answer


@router.post("/login/oidc")
async def begin_sign_on(
    request: Request,
    services: BrokerServices,
    csrf: FormText = "",
    return_to: FormText = "/",
    moved: FormText = "",
) -> Response:
    """Redirects the browser to the identity provider, which sends it back to our own origin."""
    single_sign_on = _single_sign_on(services)
    try:
        services.sessions.check_browser_form(request, csrf)
        destination = own_page(return_to)
        is_again = await services.sessions.read(request) is not None
        url, pending = await single_sign_on.begin(
            destination, must_authenticate=is_again or needs_a_fresh_sign_in(destination)
        )
    except FormForged as error:
        return await _login(request, services, return_to, error.detail, 400)
    except IdentityProviderUnavailable as error:
        _log_failure(request, error)
        return await _login(request, services, return_to, error.detail, 503)
    if not moved and services.own_origin.is_elsewhere(request.scope):
        # The provider sends the browser back to our own origin, where it does not send the cookie
        # that it gets here.
        return services.own_origin.redirect("/login", urlencode({"return_to": destination}))
    answer = RedirectResponse(url, 303, {"Cache-Control": "no-store"})
    services.sessions.keep_sign_on(answer, pending)
    return answer


@router.get("/login/oidc/callback")
async def end_sign_on(request: Request, services: BrokerServices) -> Response:
    """The redirect URI for the identity provider. The sign-on's cookie is removed in any case."""
    single_sign_on = _single_sign_on(services)
    query = parse_qsl(
        request.scope["query_string"].decode("latin-1"), keep_blank_values=True, errors="replace"
    )
    pending = services.sessions.kept_sign_on(request)
    answer: Response
    try:
        identity = await single_sign_on.finish(query, pending, request_id=request.state.request_id)
        answer = RedirectResponse(
            own_page(pending.return_to if pending else "/"), 303, {"Cache-Control": "no-store"}
        )
        await services.sessions.sign_in_by_identity(request, answer, identity)
    except SignOnFailed as error:
        _log_failure(request, error)
        answer = failure(400, "You are not signed in", error.detail, "Sign in again.")
    except NotAnAdmin as error:
        answer = failure(
            403,
            "You may not administer this service",
            error.detail,
            "Ask whoever runs it to put you into one of the groups that the setting "
            "BROKER_OIDC_ADMIN_GROUPS names, or to name one of yours there.",
        )
    except IdentityProviderUnavailable as error:
        _log_failure(request, error)
        answer = failure(503, "You are not signed in", error.detail, "Sign in again in a minute.")
    except StorageError:
        answer = failure(
            503, "You are not signed in", "The database is away.", "Sign in again in a minute."
        )
    services.sessions.forget_sign_on(answer)
    return answer


@router.post("/logout")
async def logout(request: Request, services: BrokerServices, csrf: FormText = "") -> Response:
    answer = RedirectResponse("/login", 303)
    if await services.sessions.read(request) is not None:
        await services.sessions.of_form(request, csrf)
    await services.sessions.sign_out(request, answer)
    return answer


def _log_failure(request: Request, error: BrokerError) -> None:
    log.warning("sign_on_failed", reason=error.detail, request_id=request.state.request_id)


def _single_sign_on(services: Services) -> SingleSignOn:
    if services.single_sign_on is None:
        raise NotFound("Single sign-on is not set up here (BROKER_OIDC_ISSUER).")
    return services.single_sign_on


async def _login(
    request: Request,
    services: Services,
    return_to: str,
    error: str | None = None,
    status: int = 200,
) -> Response:
    browser = services.sessions.browser(request) or services.sessions.new_browser()
    session = await services.sessions.read(request)
    answer = page(
        "login.html",
        status,
        csrf=services.sessions.csrf_for_browser(browser),
        return_to=own_page(return_to),
        error=error,
        needs_a_fresh_sign_in=may_need_a_fresh_sign_in(own_page(return_to)),
        signed_in_as=session.caller.name if session else None,
        has_moved=has_moved(request.scope["query_string"].decode("latin-1")),
        has_single_sign_on=services.single_sign_on is not None,
    )
    services.sessions.mark_browser(answer, browser)
    return answer
