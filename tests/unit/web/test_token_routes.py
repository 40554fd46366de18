"""What `/token` and `/forward-auth` ask of the services, and what they answer."""

from __future__ import annotations

import hashlib

import pytest
from tests.unit.values import ManualClock, make_token
from tests.unit.web.asgi import DISCONNECT, Answer, ask, http_scope, pieces
from tests.unit.web.made_up import KEY, Access, AuditRecorder, Counts, Issuer, other_routes

from ignition_broker.broker.errors import NotConnected
from ignition_broker.model import Actor, Scope
from ignition_broker.web.client_names import ClientNames
from ignition_broker.web.middleware import RequestIds
from ignition_broker.web.token_routes import TokenRoutes

ID = (b"x-request-id", b"id-1")
SHA256 = "ab" * 32


class Stand:
    def __init__(self, *scopes: Scope, **key) -> None:
        self.access = Access(*(scopes or (Scope.TOKEN, Scope.PROXY)), **key)
        self.issuer, self.audit_recorder, self.counts = Issuer(), AuditRecorder(), Counts()
        self.app = TokenRoutes(
            other_routes,
            self.access,
            self.issuer,
            self.audit_recorder,
            ManualClock(),
            RequestIds(),
            self.counts,
            ClientNames(["default", "sandbox"]),
        )

    async def get(self, path, query=b"", headers=(KEY, ID)) -> Answer:
        return await ask(self.app, http_scope("GET", path, query, headers))

    async def post(self, path, *messages, query=b"", headers=(KEY, ID)) -> Answer:
        return await ask(self.app, http_scope("POST", path, query, headers), messages or None)


async def test_a_token_in_memory_is_answered_at_once():
    stand = Stand()
    answer = await stand.get("/token/acme")
    assert answer.status == 200
    assert answer.json == {
        "tenant": "acme",
        "access_token": "acme-1",
        "token_type": "Bearer",
        "expires_at": "2026-01-01T00:00:00Z",
        "expires_in": 100,
        "scope": "",
    }
    assert answer.headers == {
        b"content-type": b"application/json",
        b"x-content-type-options": b"nosniff",
        b"content-length": b"%d" % len(answer.body),
        b"cache-control": b"no-store",
        b"x-request-id": b"id-1",
    }
    assert stand.issuer.asked == [("held", {"min_ttl_seconds": 60})]
    assert stand.audit_recorder.noted == [("key", "acme", "token_issue", "id-1")]
    assert stand.counts.counted == [("/token/{tenant}", "GET", 200)]


async def test_a_token_that_is_not_in_memory_is_asked_for_with_the_callers_wish():
    stand = Stand()
    stand.issuer.is_in_memory = False
    await stand.get("/token/acme")
    await stand.get("/token/acme", b"min_ttl=7")
    wanted = [wish for what, wish in stand.issuer.asked if what == "issue"]
    assert [(each["min_ttl_seconds"], each["ending_seconds"]) for each in wanted] == [
        (60, 0),
        (7, None),
    ]
    assert wanted[0]["actor"] == Actor("key", "id-1")
    assert stand.access.confirmed == 2


async def test_a_key_that_was_revoked_during_the_wait_gets_no_token():
    stand = Stand()
    stand.issuer.is_in_memory = False
    stand.access.was_revoked = True
    answer = await stand.get("/token/acme")
    assert (answer.status, answer.code) == (401, "unauthenticated")
    assert stand.audit_recorder.noted == []
    assert stand.audit_recorder.denied == [("Unauthenticated", "/token/{tenant}", "id-1")]


async def test_a_key_that_memory_does_not_know_is_looked_up_with_its_address():
    stand = Stand()
    stand.access.is_in_memory = False
    assert (await stand.get("/token/acme")).status == 200
    assert stand.access.authenticated_from == ["192.0.2.1"]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Basic eDp5")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Bearer ibk_bad")],
        [KEY, KEY],
    ],
)
async def test_a_request_without_one_good_key_is_unauthenticated(headers):
    stand = Stand()
    answer = await stand.get("/token/acme", headers=headers)
    assert (answer.status, answer.code) == (401, "unauthenticated")
    assert answer.headers[b"www-authenticate"].startswith(b"Bearer")
    assert stand.issuer.asked == []
    assert stand.counts.counted == [("/token/{tenant}", "GET", 401)]


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/token/beta", {}),
        ("/token/acme", {"scopes": (Scope.PROXY,)}),
        ("/forward-auth/acme", {"scopes": (Scope.TOKEN,)}),
        ("/forward-auth/acme", {"paths": ("GET /v1/*",)}),
    ],
)
async def test_what_the_key_does_not_cover_is_forbidden(path, key):
    stand = Stand(*key.pop("scopes", ()), **key)
    answer = await stand.get(path)
    assert (answer.status, answer.code) == (403, "forbidden")
    assert stand.issuer.asked == []


@pytest.mark.parametrize(
    "min_ttl", [b"-1", b"1.5", b"", b"x", b"31536001", b"999999999", "²".encode()]
)
async def test_a_malformed_min_ttl_is_refused(min_ttl):
    stand = Stand()
    answer = await stand.get("/token/acme", b"min_ttl=" + min_ttl)
    assert (answer.status, answer.code) == (422, "invalid-request")
    assert stand.issuer.asked == []


async def test_a_tenant_id_that_is_none_is_refused_where_memory_does_not_know_it():
    stand = Stand(tenants=("*",))
    stand.issuer.is_in_memory = False
    for path in ("/token/BAD", "/token/", "/forward-auth/BAD"):
        assert (await stand.get(path)).code == "invalid-request"
    assert (await stand.post("/token/BAD/refresh")).code == "invalid-request"
    assert {what for what, _wish in stand.issuer.asked} == {"held"}


async def test_an_error_of_the_layers_below_is_a_problem_with_the_requests_id():
    stand = Stand()
    stand.issuer.is_in_memory = False
    stand.issuer.error = NotConnected("acme")
    answer = await stand.get("/token/acme")
    assert (answer.status, answer.code, answer.json["tenant"]) == (409, "not-connected", "acme")
    assert answer.json["request_id"] == "id-1"
    assert answer.headers[b"x-request-id"] == b"id-1"


async def test_a_rejected_token_is_renewed_by_its_hash():
    stand = Stand()
    body = f'{{"rejected_token_sha256": "{SHA256.upper()}"}}'.encode()
    answer = await stand.post("/token/acme/refresh", *pieces(body[:10], body[10:]))
    assert answer.status == 200
    ((what, wish),) = stand.issuer.asked
    assert (what, wish["tenant"], wish["rejected_sha256"]) == ("renew", "acme", SHA256)
    assert stand.audit_recorder.noted == [("key", "acme", "token_refresh", "id-1")]
    assert stand.access.confirmed == 2, "ahead of the renewal and of the answer"


async def test_without_a_body_only_an_admin_renews():
    stand = Stand()
    assert (await stand.post("/token/acme/refresh")).code == "forbidden"
    stand = Stand(Scope.ADMIN)
    assert (await stand.post("/token/acme/refresh")).status == 200
    assert [what for what, _wish in stand.issuer.asked] == ["renew_anyway"]


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'"x"', b"{}", b'{"rejected_token_sha256": "ab"}', b"\xff"]
)
async def test_a_malformed_body_renews_nothing(body):
    stand = Stand(Scope.ADMIN)
    answer = await stand.post("/token/acme/refresh", *pieces(body))
    assert (answer.status, answer.code) == (422, "invalid-request")
    assert stand.issuer.asked == []


async def test_a_body_that_broke_off_is_not_taken_for_none():
    stand = Stand(Scope.ADMIN)
    answer = await stand.post("/token/acme/refresh", DISCONNECT)
    assert answer.code == "invalid-request"
    assert stand.issuer.asked == []


async def test_a_body_that_is_too_large_closes_the_connection():
    stand = Stand(Scope.ADMIN)
    answer = await stand.post("/token/acme/refresh", *pieces(b"x" * 65_537))
    assert (answer.status, answer.code) == (413, "body-too-large")
    assert answer.headers[b"connection"] == b"close"
    assert stand.issuer.asked == []


async def test_forward_auth_answers_with_the_token_as_a_header():
    stand = Stand()
    answer = await stand.get("/forward-auth/acme")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers[b"authorization"] == b"Bearer acme-1"
    assert answer.headers[b"broker-token-sha256"] == hashlib.sha256(b"acme-1").hexdigest().encode()
    assert answer.headers[b"cache-control"] == b"no-store"
    assert stand.issuer.asked == [("held", {"min_ttl_seconds": 5})]
    assert stand.audit_recorder.noted == [("key", "acme", "token_forward", "id-1")]


async def test_forward_auth_renews_a_rejected_token():
    stand = Stand()
    query = f"rejected_token_sha256={SHA256}".encode()
    assert (await stand.get("/forward-auth/acme", query)).status == 200
    ((what, wish),) = stand.issuer.asked
    assert (what, wish["rejected_sha256"]) == ("renew", SHA256)
    assert (await stand.get("/forward-auth/acme", query + b"0")).code == "invalid-request"


async def test_forward_auth_without_a_token_in_memory_takes_one_at_the_worst_near_its_end():
    stand = Stand()
    stand.issuer.is_in_memory = False
    await stand.get("/forward-auth/acme")
    what, wish = stand.issuer.asked[-1]
    assert (what, wish["min_ttl_seconds"], wish["at_worst_seconds"]) == ("issue", 5, 0)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/token/acme"),
        ("HEAD", "/token/acme"),
        ("GET", "/token/acme/refresh"),
        ("GET", "/token/acme/other"),
        ("POST", "/forward-auth/acme"),
        ("GET", "/forward-auth/acme/x"),
        ("GET", "/healthz"),
        ("GET", "/tokens"),
        ("GET", "/%74oken/acme"),
        ("GET", "/token/%61cme"),
    ],
)
async def test_everything_else_is_passed_on_uncounted(method, path):
    stand = Stand()
    scope = http_scope(method, path.replace("%74", "t").replace("%61", "a"), headers=[KEY])
    scope["raw_path"] = path.encode()
    answer = await ask(stand.app, scope)
    assert (answer.status, answer.body) == (299, b"other")
    assert stand.counts.counted == []


async def test_the_lifespan_is_passed_on():
    seen = []

    async def app(scope, _receive, _send):
        seen.append(scope["type"])

    stand = Stand()
    stand.app._app = app
    await stand.app({"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]


async def test_the_query_chooses_the_grant_at_another_client():
    stand = Stand(Scope.ADMIN)
    stand.issuer.is_in_memory = False
    stand.issuer.token = make_token("acme@sandbox")
    rejected = f"rejected_token_sha256={SHA256}&client=sandbox".encode()
    for answer in (
        await stand.get("/token/acme", b"client=sandbox"),
        await stand.get("/forward-auth/acme", b"client=sandbox"),
        await stand.get("/forward-auth/acme", rejected),
        await stand.post("/token/acme/refresh", query=b"client=sandbox"),
    ):
        assert answer.status == 200
        if answer.body:
            assert answer.json["tenant"] == "acme", "callers never see the grant's id"
    asked = [given["tenant"] for what, given in stand.issuer.asked if what != "held"]
    assert asked == ["acme@sandbox"] * 4
    noted = {(actor, grant) for actor, grant, *_ in stand.audit_recorder.noted}
    assert noted == {("key", "acme@sandbox")}


async def test_an_unknown_client_in_the_query_is_a_problem():
    stand = Stand(Scope.ADMIN)
    for path in ("/token/acme", "/forward-auth/acme"):
        answer = await stand.get(path, b"client=nowhere")
        assert (answer.status, answer.code) == (404, "unknown-client")
    answer = await stand.post("/token/acme/refresh", query=b"client=nowhere")
    assert (answer.status, answer.code) == (404, "unknown-client")
    assert [what for what, _ in stand.issuer.asked if what != "held"] == []


@pytest.mark.parametrize("scope", [Scope.ADMIN, Scope.TOKEN, Scope.PROXY])
@pytest.mark.parametrize("path", ["/token/acme@sandbox", "/forward-auth/acme@sandbox"])
async def test_a_grants_id_in_the_path_gets_nothing_even_from_memory(scope, path):
    """A key for all tenants, and memory that holds that grant."""
    stand = Stand(scope, tenants=("*",))
    answer = await stand.get(path)
    assert (answer.status, answer.code) == (422, "invalid-request")
    answer = await stand.post("/token/acme@sandbox/refresh")
    assert answer.status == 422
    assert stand.issuer.asked == []
