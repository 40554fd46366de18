"""Which calls `/proxy` admits, and how it answers where they fail."""

from __future__ import annotations

import pytest
from tests.unit.web.asgi import Answer, ask, http_scope
from tests.unit.web.made_up import KEY, Access, AuditRecorder, Counts, other_routes

from ignition_broker.broker.errors import NotConnected
from ignition_broker.model import Scope
from ignition_broker.outbound.errors import TimedOut, Unreachable
from ignition_broker.server.http_protocol import BREAK_OFF
from ignition_broker.web.middleware import RequestIds
from ignition_broker.web.proxy_route import ROUTE, ProxyRoute

ID = (b"x-request-id", b"id-1")


class Forwarder:
    def __init__(self) -> None:
        self.calls = []
        self.error: Exception | None = None
        self.answers_first = True

    async def forward(self, _scope, _receive, send, call):
        self.calls.append(call)
        if self.error is not None and not self.answers_first:
            raise self.error
        call.status = 207
        await send({"type": "http.response.start", "status": 207, "headers": []})
        if self.error is not None:
            raise self.error
        await send({"type": "http.response.body", "body": b"of the API"})


class Stand:
    def __init__(self, *scopes: Scope, **key) -> None:
        self.access = Access(*(scopes or (Scope.PROXY,)), **key)
        self.forwarder, self.audit_recorder, self.counts = Forwarder(), AuditRecorder(), Counts()
        self.app = ProxyRoute(
            other_routes,
            self.access,
            self.forwarder,
            self.audit_recorder,
            RequestIds(),
            self.counts,
        )
        self.broken_off = 0

    def break_off(self) -> None:
        self.broken_off += 1

    async def ask(self, path, method="GET", headers=(KEY, ID)) -> Answer:
        scope = http_scope(method, path, headers=headers)
        scope["state"][BREAK_OFF] = self.break_off
        return await ask(self.app, scope)


async def test_a_call_is_forwarded_as_it_was_sent():
    stand = Stand()
    answer = await stand.ask("/proxy/acme/v1//x%2Fy/")
    assert (answer.status, answer.body) == (207, b"of the API")
    (call,) = stand.forwarder.calls
    assert (call.tenant, call.prefix, call.raw_path) == ("acme", b"/proxy/acme", b"/v1//x%2Fy/")
    assert (call.caller, call.request_id) == ("key", "id-1")
    assert stand.counts.counted == [(ROUTE, "GET", 207)]
    await call.confirm()
    assert stand.access.confirmed == 1


async def test_the_tenant_alone_is_the_apis_base():
    stand = Stand()
    await stand.ask("/proxy/acme")
    assert stand.forwarder.calls[0].raw_path == b""


async def test_a_made_up_method_is_counted_as_another():
    stand = Stand()
    await stand.ask("/proxy/acme/x", "BREW")
    assert stand.counts.counted == [(ROUTE, "other", 207)]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/proxy/BAD/x", 422, "invalid-request"),
        ("/proxy/", 422, "invalid-request"),
        ("/proxy/%61cme/x", 400, "invalid-request"),
        ("/proxy/beta/x", 403, "forbidden"),
    ],
)
async def test_what_is_not_admitted_is_a_problem_of_the_brokers_own(path, status, code):
    stand = Stand()
    answer = await stand.ask(path)
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers[b"broker-error"] == code.encode()
    assert answer.headers[b"x-request-id"] == b"id-1"
    assert stand.forwarder.calls == []
    assert stand.counts.counted == [(ROUTE, "GET", status)]
    ((_error, route, request_id),) = stand.audit_recorder.denied
    assert (route, request_id) == (ROUTE, "id-1")


async def test_a_key_without_the_scope_or_without_the_path_is_forbidden():
    assert (await Stand(Scope.TOKEN).ask("/proxy/acme/x")).code == "forbidden"
    stand = Stand(paths=("GET /v1/*",))
    assert (await stand.ask("/proxy/acme/v1/x")).status == 207
    assert (await stand.ask("/proxy/acme/v2/x")).code == "forbidden"
    assert (await stand.ask("/proxy/acme/v1/x", "POST")).code == "forbidden"
    assert len(stand.forwarder.calls) == 1


async def test_a_key_that_memory_does_not_know_is_looked_up():
    stand = Stand()
    stand.access.is_in_memory = False
    assert (await stand.ask("/proxy/acme/x")).status == 207
    assert (await stand.ask("/proxy/acme/x", headers=[])).code == "unauthenticated"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotConnected("acme"), 409, "not-connected"),
        (Unreachable("no connection"), 502, "upstream-unreachable"),
        (TimedOut("no headers"), 504, "upstream-timeout"),
        (RuntimeError("a fault of ours"), 500, "internal-error"),
    ],
)
async def test_an_error_ahead_of_the_answer_is_a_problem(error, status, code):
    stand = Stand()
    stand.forwarder.error, stand.forwarder.answers_first = error, False
    answer = await stand.ask("/proxy/acme/x")
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers[b"broker-error"] == code.encode()
    assert stand.broken_off == 0
    assert stand.counts.counted == [(ROUTE, "GET", status)]


async def test_an_error_amid_the_answer_breaks_it_off():
    stand = Stand()
    stand.forwarder.error = Unreachable("reset")
    answer = await stand.ask("/proxy/acme/x")
    assert len(answer.messages) == 1, "nothing is added to the API's answer"
    assert stand.broken_off == 1
    assert stand.counts.counted == [(ROUTE, "GET", 207)]


async def test_a_fault_amid_the_answer_is_the_servers_to_tell():
    stand = Stand()
    stand.forwarder.error = RuntimeError("a fault of ours")
    with pytest.raises(RuntimeError):
        await stand.ask("/proxy/acme/x")


@pytest.mark.parametrize("path", ["/proxy", "/proxies/acme", "/", "/%70roxy/acme"])
async def test_other_paths_are_passed_on(path):
    stand = Stand()
    assert (await stand.ask(path)).body == b"other"
    assert stand.counts.counted == []


async def test_another_clients_route_uses_its_grants_and_shows_its_prefix():
    stand = Stand(tenants=("acme",))
    stand.app = ProxyRoute(
        other_routes,
        stand.access,
        stand.forwarder,
        stand.audit_recorder,
        RequestIds(),
        stand.counts,
        client="sandbox",
    )
    await stand.ask("/proxy/acme/v1")
    (call,) = stand.forwarder.calls
    assert (call.tenant, call.prefix) == ("acme@sandbox", b"/c/sandbox/proxy/acme")
    for tenant in ("acme@sandbox", "acme@other", "beta"):
        assert (await stand.ask(f"/proxy/{tenant}/v1")).status in (422, 403)
    assert len(stand.forwarder.calls) == 1
