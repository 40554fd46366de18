"""The operators' pages on a port of their own, for those who want them off the callers' one."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from ignition_broker.problems import NOT_FOUND
from ignition_broker.web.errors import problem
from ignition_broker.web.middleware import RequestIds

HEALTH = frozenset({"/healthz", "/readyz"})
"""On both: who asks for them is told where by whoever starts the process."""
OPERATIONS = frozenset({"/metrics", "/docs", "/docs/", "/docs/oauth2-redirect", "/openapi.json"})


class OperationsPort:
    """Pure ASGI, ahead of everything. Which port a request came in by is read off its socket, so
    no header can say otherwise."""

    def __init__(self, app: ASGIApp, ids: RequestIds, *, port: int) -> None:
        self._app = app
        self._ids = ids
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._belongs(scope):
            await self._app(scope, receive, send)
            return
        request_id = self._ids.of(scope)
        answer = problem(NOT_FOUND, "Not Found", request_id=request_id)
        answer.headers["X-Request-ID"] = request_id
        await answer(scope, receive, send)

    def _belongs(self, scope: Scope) -> bool:
        path: str = scope["path"]
        if scope["server"][1] == self._port:
            return path in OPERATIONS or path in HEALTH
        return path not in OPERATIONS
