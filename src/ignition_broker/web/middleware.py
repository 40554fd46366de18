"""Around every request: its id, its place in the metrics, the headers that browsers obey."""

from __future__ import annotations

import re
import secrets

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ignition_broker.telemetry import Metrics
from ignition_broker.web.errors import problem_for

log = structlog.get_logger(__name__)

_SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
# form-action is left out: Chromium applies it to the redirects behind a form, and ours lead to
# Ignition.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "frame-ancestors 'none'"
)
DOCS = ("/docs", "/redoc")


class RequestEnvelope:
    """Pure ASGI, so that it neither buffers an answer nor costs much."""

    def __init__(self, app: ASGIApp, metrics: Metrics, *, is_https: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._is_https = is_https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = next(
            (
                value.decode("ascii")
                for name, value in scope["headers"]
                if name == b"x-request-id" and _SANE_ID.fullmatch(value)
            ),
            "",
        ) or secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                scope["state"]["has_answered"] = True
                headers = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
                headers.append((b"x-request-id", request_id.encode("ascii")))
                if not scope["path"].startswith("/proxy/"):
                    headers += self._browser_headers(scope["path"])
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
            route = scope.get("route_path") or getattr(scope.get("route"), "path", "unmatched")
            self._metrics.requests.labels(route, _known_method(scope["method"]), status).inc()

    def _browser_headers(self, path: str) -> list[tuple[bytes, bytes]]:
        headers = [
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"x-frame-options", b"DENY"),
        ]
        if not path.startswith(DOCS):
            headers.append((b"content-security-policy", CONTENT_SECURITY_POLICY.encode("ascii")))
        if self._is_https:
            headers.append((b"strict-transport-security", b"max-age=31536000"))
        return headers


def _known_method(method: str) -> str:
    known = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
    return method if method in known else "other"
