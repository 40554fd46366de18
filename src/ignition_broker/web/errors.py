"""Which error is which problem, and the answers made of them; browsers are answered by pages.

Over 250 lines: a third of them is the one table of errors.
"""

from __future__ import annotations

import json
import math
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from ignition_broker import problems
from ignition_broker.broker import errors
from ignition_broker.cipher import CipherError
from ignition_broker.grant_ids import DEFAULT_CLIENT, client_of, tenant_of
from ignition_broker.outbound.errors import (
    ExchangeError,
    NoConnectionFree,
    TimedOut,
    Unreachable,
)
from ignition_broker.problems import ProblemKind
from ignition_broker.proxy.caller_pace import CallerTooSlow
from ignition_broker.proxy.paging.asked import PagingRefused
from ignition_broker.proxy.paging.errors import PageRefused, PageUnreadable
from ignition_broker.proxy.paths import PathRefused
from ignition_broker.storage.errors import StorageFault, StorageUnavailable
from ignition_broker.web.browser_sessions import SessionEnded
from ignition_broker.web.csrf import FormForged
from ignition_broker.web.head_requests import has_head
from ignition_broker.web.rendering import failure

log = structlog.get_logger(__name__)


class BodyTooLarge(errors.BrokerError):
    """The body is larger than the broker's own routes take."""


class BodyTooSlow(errors.BrokerError):
    """The body was announced and did not come in time."""


PROBLEMS: dict[type[Exception], ProblemKind] = {
    errors.InvalidRequest: problems.MALFORMED,
    FormForged: problems.FORM_STALE,
    BodyTooLarge: problems.BODY_TOO_LARGE,
    BodyTooSlow: problems.TOO_SLOW,
    CallerTooSlow: problems.TOO_SLOW,
    errors.Unauthenticated: problems.UNAUTHENTICATED,
    errors.AllowanceSpent: problems.ALLOWANCE_SPENT,
    errors.TooManyAttempts: problems.TOO_MANY_ATTEMPTS,
    errors.Forbidden: problems.FORBIDDEN,
    errors.SignOnFailed: problems.SIGN_ON_FAILED,
    errors.NotAnAdmin: problems.NOT_AN_ADMIN,
    errors.IdentityProviderUnavailable: problems.SIGN_ON_UNAVAILABLE,
    errors.NotFound: problems.NOT_FOUND,
    errors.Conflict: problems.CONFLICT,
    errors.UnknownClient: problems.UNKNOWN_CLIENT,
    errors.UnknownTenant: problems.UNKNOWN_TENANT,
    errors.NotConnected: problems.NOT_CONNECTED,
    errors.ReauthorizationRequired: problems.REAUTHORIZATION_REQUIRED,
    errors.NotRenewable: problems.NOT_RENEWABLE,
    errors.AccountMismatch: problems.ACCOUNT_MISMATCH,
    errors.ProviderFault: problems.PROVIDER_FAULT,
    errors.RenewedTooOften: problems.RENEWED_TOO_OFTEN,
    errors.ProviderUnavailable: problems.PROVIDER_UNAVAILABLE,
    errors.Unavailable: problems.UNAVAILABLE,
    PathRefused: problems.PATH_REFUSED,
    PagingRefused: problems.UNREADABLE,
    PageRefused: problems.PAGE_REFUSED,
    PageUnreadable: problems.PAGE_UNREADABLE,
    NoConnectionFree: problems.UNAVAILABLE,
    Unreachable: problems.UPSTREAM_UNREACHABLE,
    TimedOut: problems.UPSTREAM_TIMEOUT,
    StorageUnavailable: problems.UNAVAILABLE,
    StorageFault: problems.INTERNAL,
    CipherError: problems.INTERNAL,
}
"""An error that is not listed is what its nearest listed base class is."""

KNOWN_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

# Errors that the framework raises by itself.
_FRAMEWORK_PROBLEMS = {
    400: problems.UNREADABLE,
    401: problems.UNAUTHENTICATED,
    403: problems.FORBIDDEN,
    404: problems.NOT_FOUND,
    405: problems.METHOD_NOT_ALLOWED,
    413: problems.BODY_TOO_LARGE,
    422: problems.MALFORMED,
}


def problem(
    kind: ProblemKind,
    detail: str,
    *,
    request_id: str | None,
    tenant: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """The answer that says so; ``detail`` is for the caller to read. ``tenant``: a grant's id."""
    return Response(
        json.dumps(kind.members(detail, request_id, **_apart(tenant))),
        kind.status,
        {"Cache-Control": "no-store", **(headers or {})},
        "application/problem+json",
    )


def problem_for(error: Exception, request_id: str | None) -> Response:
    """The answer to an error of the layers below; an unknown one does not tell its text."""
    kind = kind_of(error)
    headers: dict[str, str] = {}
    if kind.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="ignition-broker"'
    if kind.status in (408, 413):
        # The rest of the body is not read, so the connection can't be used again.
        headers["Connection"] = "close"
    if kind.status in {429, 503}:
        seconds = getattr(error, "retry_after_seconds", 1.0)
        headers["Retry-After"] = str(math.ceil(seconds))
    if isinstance(error, errors.AllowanceSpent):
        headers["Broker-Allowance-Remaining"] = "0"
        headers["Broker-Allowance-Reset"] = str(error.reset_seconds)
    detail, tenant = _told(error)
    return problem(kind, detail, request_id=request_id, tenant=tenant, headers=headers)


def members_for(error: Exception, request_id: str, grant: str | None = None) -> dict[str, Any]:
    """The problem that `problem_for` answers with, without its status and headers. ``grant``: the
    one that is named if the error names none."""
    detail, tenant = _told(error)
    return kind_of(error).members(detail, request_id, **_apart(tenant or grant))


def _apart(grant: str | None) -> dict[str, str | None]:
    """The members ``tenant``, and ``client`` where it is another than the default."""
    if grant is None:
        return {}
    client = client_of(grant)
    return {"tenant": tenant_of(grant), "client": None if client == DEFAULT_CLIENT else client}


def answer_for(error: Exception, request_id: str, path: str) -> Response:
    """As `problem_for`, for the routes ahead of FastAPI: with the request's id in a header, and a
    line in the log for an error that no caller can have caused."""
    log_unexpected(error, request_id, path)
    answer = problem_for(error, request_id)
    answer.headers["X-Request-ID"] = request_id
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return answer


def log_unexpected(error: Exception, request_id: str, path: str) -> None:
    """A line in the log for an error that no caller can have caused; none for others."""
    if not isinstance(error, errors.BrokerError | ExchangeError | StorageUnavailable):
        log.error("request_failed", request_id=request_id, path=path, exc_info=error)


def _told(error: Exception) -> tuple[str, str | None]:
    """An error's text and its tenant, if any."""
    if isinstance(error, errors.BrokerError):
        return error.detail, error.tenant
    if isinstance(error, ExchangeError | StorageUnavailable):
        return error.detail, None
    return "Something went wrong here; the log has this request's id.", None


def kind_of(error: Exception) -> ProblemKind:
    """Which problem an error is; an unknown one is an internal error."""
    for known in type(error).__mro__:
        if known in PROBLEMS:
            return PROBLEMS[known]
    return problems.INTERNAL


def _is_for_people(request: Request) -> bool:
    """Whether a browser asks for one of the console's pages."""
    is_page = getattr(request.scope.get("route"), "include_in_schema", True) is False
    return is_page and "text/html" in request.headers.get("accept", "")


def _failure(kind: ProblemKind, detail: str, tenant: str | None) -> Response:
    next_step = "Reload the page in a minute." if kind.status >= 500 else "Nothing was changed."
    return failure(kind.status, kind.title, detail, next_step, grant=tenant)


def install(app: FastAPI) -> None:
    """Makes FastAPI answer every error of every route with a problem or a page."""

    async def known(request: Request, error: Exception) -> Response:
        if isinstance(error, StorageFault | CipherError):
            log.error("request_failed", reason=str(error), kind=type(error).__name__)
        route = getattr(request.scope.get("route"), "path", "unmatched")
        request.app.state.services.audit_recorder.record_denied_call(
            error, route, request.state.request_id
        )
        if _is_for_people(request):
            detail, tenant = _told(error)
            return _failure(kind_of(error), detail, tenant)
        return problem_for(error, request.state.request_id)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101  # as registered below
        parts = [
            f"{'.'.join(str(step) for step in entry['loc'][1:]) or 'body'}: {entry['msg']}"
            for entry in error.errors()
        ]
        if _is_for_people(request):
            return _failure(problems.MALFORMED, "; ".join(parts), None)
        return problem(problems.MALFORMED, "; ".join(parts), request_id=request.state.request_id)

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  # as registered below
        others = problems.UNREADABLE if error.status_code < 500 else problems.INTERNAL
        kind = _FRAMEWORK_PROBLEMS.get(error.status_code, others)
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_allowed_methods(request))
        return problem(
            kind,
            str(error.detail),
            request_id=request.state.request_id,
            headers=headers,
        )

    async def stale_form(_request: Request, error: Exception) -> Response:
        assert isinstance(error, FormForged)  # noqa: S101  # as registered below
        return failure(400, "This form is stale", error.detail, "Nothing was changed.")

    async def session_ended(_request: Request, error: Exception) -> Response:
        assert isinstance(error, SessionEnded)  # noqa: S101  # as registered below
        return failure(401, "Your session has ended", error.detail, "Nothing was changed.")

    app.add_exception_handler(FormForged, stale_form)
    app.add_exception_handler(SessionEnded, session_ended)
    for kind in (errors.BrokerError, StorageUnavailable, StorageFault, CipherError):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, framework)


def _allowed_methods(request: Request) -> list[str]:
    """The methods of all routes at this path (RFC 9110 section 10.2.1); FastAPI tells only those of
    the first."""
    allowed = {
        method
        for method in KNOWN_METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    }
    if "GET" in allowed and has_head(request.scope["path"]):
        allowed.add("HEAD")
    return [method for method in KNOWN_METHODS if method in allowed]
