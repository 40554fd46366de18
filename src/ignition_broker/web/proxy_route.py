"""`/proxy`, answered by a plain ASGI app ahead of FastAPI's router, which would decode the path."""

from __future__ import annotations

from functools import partial
from typing import Final

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from ignition_broker.broker.audit.recorder import AuditRecorder
from ignition_broker.broker.callers.access import Access
from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.grant_ids import grant_id
from ignition_broker.model import Scope as KeyScope
from ignition_broker.model import is_tenant_id
from ignition_broker.outbound.errors import ExchangeError
from ignition_broker.proxy.forward import Forwarder
from ignition_broker.proxy.forwarded_call import ForwardedCall
from ignition_broker.proxy.metered import MeteredForwarder
from ignition_broker.proxy.paths import PathRefused
from ignition_broker.server.http_protocol import BREAK_OFF
from ignition_broker.telemetry import RequestCounts
from ignition_broker.web.authorization import caller_of, check, check_paths, held_caller
from ignition_broker.web.errors import answer_for, kind_of
from ignition_broker.web.middleware import RequestIds, known_method
from ignition_broker.web.path_spelling import ADVICE, is_needlessly_encoded

log = structlog.get_logger(__name__)

PREFIX: Final = b"/proxy/"
ROUTE: Final = "/proxy/{tenant}/{path}"


class ProxyRoute:
    """Checks the key, then forwards the call; passes every other request on to ``app``.

    ``client``: the OAuth client whose grants it uses, where callers have named it in the path ahead
    (`web.client_routes`); None: the default one.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        forwarder: Forwarder | MeteredForwarder,
        audit_recorder: AuditRecorder,
        ids: RequestIds,
        counts: RequestCounts,
        *,
        client: str | None = None,
    ) -> None:
        self._app = app
        self._access = access
        self._forwarder = forwarder
        self._audit_recorder = audit_recorder
        self._ids = ids
        self._counts = counts
        self._client = client
        self._prefix = PREFIX if client is None else b"/c/" + client.encode("ascii") + PREFIX

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw_path: bytes = scope.get("raw_path", b"") or b""
        if scope["type"] != "http" or not raw_path.startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        request_id = self._ids.of(scope)
        call = None
        try:
            call = await self._admitted(scope, raw_path, request_id)
            await self._forwarder.forward(scope, receive, send, call)
            status = call.status
        except Exception as error:
            if call is not None and call.status:
                status = call.status
                _break_off(scope, call, error)
            else:
                self._audit_recorder.record_denied_call(error, ROUTE, request_id)
                answer = answer_for(error, request_id, scope["path"])
                answer.headers["Broker-Error"] = kind_of(error).code
                status = answer.status_code
                await answer(scope, receive, send)
        self._counts.count(ROUTE, known_method(scope["method"]), status)

    async def _admitted(self, scope: Scope, raw_path: bytes, request_id: str) -> ForwardedCall:
        """The call, if its key may make it. Raises `PathRefused`, `InvalidRequest`, `Forbidden` or
        what `caller_of` raises."""
        tenant_bytes, slash, rest = raw_path[len(PREFIX) :].partition(b"/")
        tenant = tenant_bytes.decode("latin-1")
        if is_needlessly_encoded(tenant_bytes):
            raise PathRefused(ADVICE)
        if not is_tenant_id(tenant):
            raise InvalidRequest("tenant: no tenant id; call /proxy/{tenant}/{path}.")
        caller = held_caller(scope, self._access) or await caller_of(scope, self._access)
        check(caller, KeyScope.PROXY, tenant)
        if caller.paths is not None:
            check_paths(caller, scope, slash + rest, tenant)
        confirm = partial(self._access.confirm, caller, self._access.changes())
        grant = tenant if self._client is None else grant_id(tenant, self._client)
        prefix = self._prefix + tenant_bytes
        return ForwardedCall(grant, slash + rest, prefix, request_id, caller.name, confirm, caller)


def _break_off(scope: Scope, call: ForwardedCall, error: Exception) -> None:
    """Ends an answer that has begun, so that its caller sees that it is not whole."""
    if not isinstance(error, ExchangeError) or BREAK_OFF not in scope["state"]:
        raise error
    log.warning(
        "answer_broken_off", tenant=call.tenant, request_id=call.request_id, reason=error.detail
    )
    scope["state"][BREAK_OFF]()
