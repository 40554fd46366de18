"""What every request to FastAPI's routes gets: an id, a count in the metrics, browsers' security
headers. The token and proxy routes, ahead of FastAPI, do without this wrapper."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Iterable

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ignition_broker.telemetry import RequestCounts
from ignition_broker.web.docs import DOCS_CONTENT_SECURITY_POLICY, DOCS_PATH
from ignition_broker.web.errors import KNOWN_METHODS, problem_for

log = structlog.get_logger(__name__)

_SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
# form-action is missing, since Chromium applies it to the redirects that follow a form, and ours
# lead to Ignition.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "frame-ancestors 'none'"
)


class RequestEnvelope:
    """A plain ASGI wrapper, so that it does not buffer answers and costs little."""

    def __init__(
        self, app: ASGIApp, ids: RequestIds, counts: RequestCounts, *, is_https: bool
    ) -> None:
        self._app = app
        self._ids = ids
        self._counts = counts
        self._is_https = is_https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = self._ids.of(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode("ascii")),
                    *self._browser_headers(scope["path"], message["headers"]),
                ]
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except Exception as error:
            if status:
                raise
            log.exception("request_failed", request_id=request_id, path=scope["path"])
            await problem_for(error, request_id)(scope, receive, send_on)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self._counts.count(route, known_method(scope["method"]), status)

    def _browser_headers(
        self, path: str, given: Iterable[tuple[bytes, bytes]]
    ) -> list[tuple[bytes, bytes]]:
        """Those that the answer did not set otherwise by itself, as the public pages do."""
        policy = DOCS_CONTENT_SECURITY_POLICY if path == DOCS_PATH else CONTENT_SECURITY_POLICY
        headers = [
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"x-frame-options", b"DENY"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cross-origin-resource-policy", b"same-origin"),
            (b"content-security-policy", policy.encode("ascii")),
        ]
        if self._is_https:
            headers.append((b"strict-transport-security", b"max-age=31536000"))
        names = {name for name, _value in given}
        return [header for header in headers if header[0] not in names]


class RequestIds:
    """Makes request ids that are unique across processes."""

    def __init__(self) -> None:
        self._process = secrets.token_hex(6)
        self._numbers = itertools.count()

    def of(self, scope: Scope) -> str:
        """The caller's X-Request-ID if it is at most 128 of the characters allowed, else a new
        id."""
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _SANE_ID.fullmatch(value):
                return str(value.decode("ascii"))
        return f"{self._process}{next(self._numbers):06x}"


def known_method(method: str) -> str:
    """The method as a metric's label; callers can make up any number of others."""
    return method if method in KNOWN_METHODS else "other"
