"""`/c/{client}` ahead of a path: which route takes the request, and as what."""

from __future__ import annotations

import pytest
from tests.unit.web.asgi import Answer, ask, http_scope
from tests.unit.web.made_up import KEY, Access, AuditRecorder, Counts, other_routes

from ignition_broker.web.client_routes import ROUTE, ClientRoutes
from ignition_broker.web.middleware import RequestIds


class Taken:
    """An app that keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes, bytes]] = []

    async def __call__(self, scope, _receive, send) -> None:
        self.asked.append((scope["path"], scope["raw_path"], scope["query_string"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Stand:
    def __init__(self, *names: str) -> None:
        self.named, self.counts, self.audit_recorder = Taken(), Counts(), AuditRecorder()
        self.proxies = {name: Taken() for name in names}
        self.app = ClientRoutes(
            other_routes,
            self.named,
            self.proxies,
            Access(),  # type: ignore[arg-type]
            self.audit_recorder,  # type: ignore[arg-type]
            RequestIds(),
            self.counts,  # type: ignore[arg-type]
        )

    async def get(self, path, query=b"", headers=(KEY,)) -> Answer:
        return await ask(self.app, http_scope("GET", path, query, headers))


@pytest.fixture
def stand():
    return Stand("default", "sandbox")


async def test_a_tenants_route_gets_the_client_in_its_query(stand):
    for path in (
        *("/token/acme", "/token/acme/refresh", "/forward-auth/acme", "/auth"),
        *("/admin/tenants", "/admin/tenants/acme/connect-link", "/admin/audit"),
    ):
        assert (await stand.get(f"/c/sandbox{path}")).status == 200
        assert stand.named.asked.pop() == (path, path.encode(), b"client=sandbox")
    await stand.get("/c/default/token/acme", b"min_ttl=9")
    assert stand.named.asked == [("/token/acme", b"/token/acme", b"min_ttl=9&client=default")]


async def test_a_proxied_call_keeps_its_path_and_query(stand):
    scope = http_scope("GET", "/c/sandbox/proxy/acme/a b/", b"client=of-the-api", [KEY])
    scope["raw_path"] = b"/c/sandbox/proxy/acme/a%20b/"
    await ask(stand.app, scope)
    assert stand.proxies["sandbox"].asked == [
        ("/proxy/acme/a b/", b"/proxy/acme/a%20b/", b"client=of-the-api")
    ]
    assert stand.proxies["default"].asked == stand.named.asked == []


@pytest.mark.parametrize(
    "path",
    [
        *("/token/acme", "/c", "/c/sandbox", "/c/sandbox/", "/c/sandbox/healthz", "/connect/c"),
        *("/c/sandbox/c/default/token/acme", "/c/sandbox/callback", "/c/sandbox/admin/api-keys"),
        *("/c/sandbox//token/acme", "/c//token/acme/x/", "/c/sandbox/auth/"),
    ],
)
async def test_no_other_path_is_rewritten(stand, path):
    answer = await stand.get(path)
    if path == "/c//token/acme/x/":
        assert answer.code == "unknown-client"
    else:
        assert answer.status == 299
    assert stand.named.asked == []


@pytest.mark.parametrize("query", [b"client=sandbox", b"client=other", b"a=1&cl%69ent=", b"client"])
async def test_a_client_in_path_and_query_is_refused(stand, query):
    answer = await stand.get("/c/sandbox/token/acme", query)
    assert (answer.status, answer.code) == (422, "invalid-request")
    assert answer.json["detail"].startswith("client: ")
    assert stand.named.asked == []


@pytest.mark.parametrize("rest", ["token/acme", "proxy/acme/x", "admin/tenants/acme"])
@pytest.mark.parametrize("name", ["nowhere", "s%61ndbox", "sandbox@x", "SANDBOX"])
async def test_an_unknown_client_is_named_to_whoever_has_a_key(stand, rest, name):
    answer = await stand.get(f"/c/{name}/{rest}")
    assert (answer.status, answer.code) == (404, "unknown-client")
    assert name in answer.json["detail"]
    assert stand.counts.counted == [(ROUTE, "GET", 404)]
    assert (await stand.get(f"/c/{name}/{rest}", headers=())).status == 401
    assert [kind for kind, _, _ in stand.audit_recorder.denied][1:] == ["Unauthenticated"]
    assert stand.named.asked == []


async def test_a_browser_is_told_of_an_unknown_client_without_a_key(stand):
    assert (await stand.get("/c/nowhere/auth", headers=())).code == "unknown-client"


async def test_with_one_client_alone_nothing_is_served_behind_the_prefix():
    stand = Stand()
    for name in ("default", "sandbox"):
        assert (await stand.get(f"/c/{name}/token/acme")).code == "unknown-client"
    assert stand.named.asked == []
