"""``/c/{client}`` ahead of a tenant's route: the same route, for the grant at that OAuth client.

It stands behind the routes that are answered ahead of FastAPI, so that calls for the default client
pay nothing for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

from ignition_broker.broker.audit.recorder import AuditRecorder
from ignition_broker.broker.callers.access import Access
from ignition_broker.broker.errors import InvalidRequest, UnknownClient
from ignition_broker.telemetry import RequestCounts
from ignition_broker.web.authorization import caller_of
from ignition_broker.web.client_names import PARAMETER
from ignition_broker.web.errors import answer_for
from ignition_broker.web.middleware import RequestIds, known_method

PREFIX: Final = b"/c/"
ROUTE: Final = "/c/{client}"
PROXY: Final = b"/proxy/"
BROWSERS: Final = b"/auth"
_TENANT_ROUTES: Final = (b"/token/", b"/forward-auth/", b"/admin/tenants/")
_LISTS: Final = frozenset({BROWSERS, b"/admin/tenants", b"/admin/audit"})


class ClientRoutes:
    """Passes every other request on to ``app``.

    ``proxies``: by the clients' names, the default one's too; empty where there is only that one:
    then nothing is served behind the prefix. ``named``: takes all the other routes, with the client
    as a query parameter.
    """

    def __init__(
        self,
        app: ASGIApp,
        named: ASGIApp,
        proxies: Mapping[str, ASGIApp],
        access: Access,
        audit_recorder: AuditRecorder,
        ids: RequestIds,
        counts: RequestCounts,
    ) -> None:
        self._app = app
        self._named = named
        self._proxies = proxies
        self._access = access
        self._audit_recorder = audit_recorder
        self._ids = ids
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw_path: bytes = scope.get("raw_path", b"") or b""
        if scope["type"] != "http" or not raw_path.startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        written, slash, rest = raw_path[len(PREFIX) :].partition(b"/")
        client, route = written.decode("latin-1"), slash + rest
        if not route.startswith((*_TENANT_ROUTES, PROXY)) and route not in _LISTS:
            await self._app(scope, receive, send)
            return
        inner: dict[str, Any] = {
            **scope,
            "raw_path": route,
            # The name that matches has no escapes, so it is as long in the decoded path.
            "path": scope["path"][len(PREFIX) + len(written) :],
        }
        try:
            proxy = await self._proxy_of(client, route, scope)
            if not route.startswith(PROXY):
                inner["query_string"] = _naming(client, scope["query_string"])
        except Exception as error:
            await self._refuse(error, scope, receive, send)
            return
        app = proxy if route.startswith(PROXY) else self._named
        await app(inner, receive, send)

    async def _proxy_of(self, client: str, route: bytes, scope: Scope) -> ASGIApp:
        """Raises `UnknownClient`, to programs once they have shown a key that is valid."""
        proxy = self._proxies.get(client)
        if proxy is not None:
            return proxy
        if route != BROWSERS:
            await caller_of(scope, self._access)
        raise UnknownClient(client)

    async def _refuse(self, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = self._ids.of(scope)
        self._audit_recorder.record_denied_call(error, ROUTE, request_id)
        answer = answer_for(error, request_id, scope["path"])
        await answer(scope, receive, send)
        self._counts.count(ROUTE, known_method(scope["method"]), answer.status_code)


def _naming(client: str, query: bytes) -> bytes:
    """The query with the client. Raises `InvalidRequest` if it names one already."""
    named = f"{PARAMETER}={client}".encode("ascii")
    if not query:
        return named
    if any(
        name == PARAMETER for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    ):
        raise InvalidRequest("client: is in the path; leave it out of the query.")
    return query + b"&" + named
