"""The one table from errors to problem+json (RFC 9457) and status; forms get pages."""

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

from ignition_broker.broker import errors
from ignition_broker.cipher import CipherError
from ignition_broker.outbound.errors import (
    ExchangeError,
    NoConnectionFree,
    TimedOut,
    Unreachable,
)
from ignition_broker.proxy.caller_pace import CallerTooSlow
from ignition_broker.proxy.paths import PathRefused
from ignition_broker.storage.errors import StorageFault, StorageUnavailable
from ignition_broker.web.browser_sessions import FormForged, SessionEnded
from ignition_broker.web.head_requests import has_head
from ignition_broker.web.rendering import failure

log = structlog.get_logger(__name__)


class BodyTooLarge(errors.BrokerError):
    """More than a route of the broker's own takes."""


class BodyTooSlow(errors.BrokerError):
    """It was announced and did not come in time."""


PROBLEMS: dict[type[Exception], tuple[str, int, str]] = {
    errors.InvalidRequest: ("invalid-request", 422, "The request is malformed"),
    FormForged: ("invalid-request", 400, "The form is stale"),
    BodyTooLarge: ("body-too-large", 413, "The body is too large"),
    BodyTooSlow: ("request-timeout", 408, "The body came too slowly"),
    CallerTooSlow: ("request-timeout", 408, "The body came too slowly"),
    errors.Unauthenticated: ("unauthenticated", 401, "No valid API key"),
    errors.TooManyAttempts: ("too-many-attempts", 429, "Too many failed attempts"),
    errors.Forbidden: ("forbidden", 403, "Not covered by this API key"),
    errors.SignOnFailed: ("invalid-request", 400, "Not signed on"),
    errors.NotAnAdmin: ("forbidden", 403, "Not an admin"),
    errors.IdentityProviderUnavailable: ("unavailable", 503, "Not signed on"),
    errors.NotFound: ("not-found", 404, "Not found"),
    errors.Conflict: ("conflict", 409, "It exists already"),
    errors.UnknownTenant: ("unknown-tenant", 404, "Unknown tenant"),
    errors.NotConnected: ("not-connected", 409, "Tenant not connected"),
    errors.ReauthorizationRequired: (
        "reauthorization-required",
        409,
        "Tenant must be connected again",
    ),
    errors.NotRenewable: ("not-renewable", 409, "The token can't be renewed"),
    errors.ProviderFault: ("provider-error", 502, "Ignition's answer is no token"),
    errors.RenewedTooOften: ("renewed-too-often", 429, "Renewed too often"),
    errors.ProviderUnavailable: ("provider-unavailable", 503, "Ignition is not available"),
    errors.Unavailable: ("unavailable", 503, "Temporarily unavailable"),
    PathRefused: ("invalid-request", 400, "The path is not passed on"),
    NoConnectionFree: ("unavailable", 503, "Temporarily unavailable"),
    Unreachable: (
        "upstream-unreachable",
        502,
        "Ignition's API can't be reached",
    ),
    TimedOut: ("upstream-timeout", 504, "Ignition's API did not answer"),
    StorageUnavailable: ("unavailable", 503, "Temporarily unavailable"),
    StorageFault: ("internal-error", 500, "Internal error"),
    CipherError: ("internal-error", 500, "Internal error"),
}

TYPE_PREFIX = "urn:ignition-broker:"

KNOWN_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_CODES_BY_STATUS = {
    400: "invalid-request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    413: "body-too-large",
    422: "invalid-request",
}


def problem(
    code: str,
    status: int,
    title: str,
    detail: str,
    *,
    request_id: str | None,
    tenant: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    members: dict[str, Any] = {
        "type": f"{TYPE_PREFIX}{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": request_id,
    }
    if tenant is not None:
        members["tenant"] = tenant
    return Response(
        json.dumps(members),
        status,
        {"Cache-Control": "no-store", **(headers or {})},
        "application/problem+json",
    )


def problem_for(error: Exception, request_id: str | None) -> Response:
    """The answer for an error of the layers below."""
    code, status, title = entry_for(error)
    headers: dict[str, str] = {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="ignition-broker"'
    if status in (408, 413):
        # What is left of the body is not read, so the connection can't be used again.
        headers["Connection"] = "close"
    if status in {429, 503}:
        seconds = getattr(error, "retry_after_seconds", 1.0)
        headers["Retry-After"] = str(math.ceil(seconds))
    if isinstance(error, errors.BrokerError):
        detail, tenant = error.detail, error.tenant
    elif isinstance(error, ExchangeError | StorageUnavailable):
        detail, tenant = error.detail, None
    else:
        detail, tenant = "Something went wrong here; the log has this request's id.", None
    return problem(
        code, status, title, detail, request_id=request_id, tenant=tenant, headers=headers
    )


def answer_for(error: Exception, request_id: str, path: str) -> Response:
    """For the routes ahead of FastAPI: with the request's id, and a line in the log for what is no
    caller's doing."""
    if not isinstance(error, errors.BrokerError | ExchangeError | StorageUnavailable):
        log.error("request_failed", request_id=request_id, path=path, exc_info=error)
    answer = problem_for(error, request_id)
    answer.headers["X-Request-ID"] = request_id
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return answer


def entry_for(error: Exception) -> tuple[str, int, str]:
    """Code, status and title."""
    for kind in type(error).__mro__:
        if kind in PROBLEMS:
            return PROBLEMS[kind]
    return "internal-error", 500, "Internal error"


def install(app: FastAPI) -> None:
    """Every error of every route becomes a problem."""

    async def known(request: Request, error: Exception) -> Response:
        if isinstance(error, StorageFault | CipherError):
            log.error("request_failed", reason=str(error), kind=type(error).__name__)
        route = getattr(request.scope.get("route"), "path", "unmatched")
        request.app.state.services.journal.note_denied(error, route, request.state.request_id)
        return problem_for(error, request.state.request_id)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101  # as registered below
        parts = [
            f"{'.'.join(str(step) for step in entry['loc'][1:]) or 'body'}: {entry['msg']}"
            for entry in error.errors()
        ]
        return problem(
            "invalid-request",
            422,
            "The request is malformed",
            "; ".join(parts),
            request_id=request.state.request_id,
        )

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  # as registered below
        code = _CODES_BY_STATUS.get(error.status_code, "invalid-request")
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_allowed_methods(request))
        return problem(
            code,
            error.status_code,
            str(error.detail),
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
    """Of all routes at this path (RFC 9110 section 10.2.1); the framework tells of the first."""
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
