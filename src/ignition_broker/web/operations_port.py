"""The operators' pages on a port of their own, where `BROKER_OPERATIONS_PORT` is set."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from ignition_broker.problems import NOT_FOUND
from ignition_broker.web.errors import problem
from ignition_broker.web.middleware import RequestIds

HEALTH = frozenset({"/healthz", "/readyz"})
"""Served on both ports, since an orchestrator may probe either."""
OPERATIONS = frozenset({"/metrics", "/docs", "/docs/", "/docs/oauth2-redirect", "/openapi.json"})


class OperationsPort:
    """An ASGI wrapper around everything. It takes the port from the connection's socket, so that no
    header can pretend another."""

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
