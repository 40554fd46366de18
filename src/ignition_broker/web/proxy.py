"""`/proxy`, answered ahead of FastAPI's router, which would decode the path."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from ignition_broker.broker.access import Access
from ignition_broker.broker.errors import BrokerError, InvalidRequest
from ignition_broker.model import Scope as KeyScope
from ignition_broker.model import is_tenant_id
from ignition_broker.proxy.errors import ProxyError
from ignition_broker.proxy.forward import ForwardedCall, Forwarder
from ignition_broker.storage.errors import StorageError
from ignition_broker.web.callers import caller_of, check
from ignition_broker.web.errors import entry_for, problem_for

PREFIX = b"/proxy/"


class ProxyRoute:
    """Pure ASGI: nothing between the two sockets but the rules of the proxy."""

    def __init__(self, app: ASGIApp, access: Access, forwarder: Forwarder) -> None:
        self._app = app
        self._access = access
        self._forwarder = forwarder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw_path: bytes = scope.get("raw_path", b"") or b""
        if scope["type"] != "http" or not raw_path.startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        scope["route"] = self
        request_id: str = scope["state"]["request_id"]
        try:
            call = await self._admitted(scope, raw_path, request_id)
            await self._forwarder.forward(scope, receive, send, call)
        except (BrokerError, ProxyError, StorageError) as error:
            if scope["state"].get("has_answered"):
                raise
            answer = problem_for(error, request_id)
            answer.headers["Broker-Error"] = entry_for(error)[0]
            await answer(scope, receive, send)

    path = "/proxy/{tenant}/{path}"

    async def _admitted(self, scope: Scope, raw_path: bytes, request_id: str) -> ForwardedCall:
        tenant_bytes, slash, rest = raw_path[len(PREFIX) :].partition(b"/")
        tenant = tenant_bytes.decode("latin-1")
        if not is_tenant_id(tenant):
            raise InvalidRequest("tenant: no tenant id; call /proxy/{tenant}/{path}.")
        caller = await caller_of(scope, self._access)
        check(caller, KeyScope.PROXY, tenant)
        return ForwardedCall(tenant, slash + rest, PREFIX + tenant_bytes, request_id)
