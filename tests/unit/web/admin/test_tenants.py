"""What the admin routes for tenants and connect links ask for, and what they answer."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from tests.unit.web.asgi import ask, http_scope, pieces
from tests.unit.web.made_up import KEY, Access, admin_app

from ignition_broker.broker.errors import UnknownTenant
from ignition_broker.broker.grants.connect_links import UNDESCRIBED
from ignition_broker.model import Actor, GrantStatus, Scope, TenantSummary
from ignition_broker.web.admin import connect_links, tenants

AT = datetime(2026, 1, 1, tzinfo=UTC)


def summary(tenant: str) -> TenantSummary:
    return TenantSummary(tenant, GrantStatus.CONNECTED, "read", AT, AT, None, None, renewable=True)


class Stand:
    def __init__(self, monkeypatch, *scopes: Scope) -> None:
        self.calls: list[tuple] = []
        self.answers: dict[str, object] = {}
        makers = SimpleNamespace(of=lambda caller: f"maker of {caller.name}", standing="standing")
        self.access = Access(*(scopes or (Scope.ADMIN,)))
        self.app = admin_app(
            self.access,
            cipher="cipher",
            revocations="revocations",
            held_grants="held grants",
            allowance=None,
            makers=makers,
            public_origin="https://broker.example",
            public_pages=SimpleNamespace(origins=("https://app.example.com",)),
        )
        for module, names in (
            (tenants, ("list_tenants", "show_tenant", "disconnect")),
            (connect_links, ("create_link", "list_links", "revoke_link")),
        ):
            for name in names:
                monkeypatch.setattr(module, name, self._recording(name))

    def _recording(self, name):
        async def call(_database, *args, **kwargs):
            self.calls.append((name, *args, *kwargs.items()))
            answer = self.answers.get(name)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    async def ask(self, method, path, query=b"", headers=(KEY,), body=b""):
        if body:
            headers = (*headers, (b"content-type", b"application/json"))
        scope = http_scope(method, f"/admin{path}", query, headers)
        return await ask(self.app, scope, pieces(body))


@pytest.fixture
def stand(monkeypatch):
    return Stand(monkeypatch)


async def test_a_page_of_tenants_says_where_the_next_one_begins(stand):
    stand.answers["list_tenants"] = [summary("a"), summary("b"), summary("c")]
    answer = await stand.ask("GET", "/tenants", b"limit=2&cursor=0&status=connected")
    assert [each["tenant"] for each in answer.json["tenants"]] == ["a", "b"]
    assert answer.json["next_cursor"] == "b"
    (call,) = stand.calls
    assert call[0] == "list_tenants"
    assert dict(call[1:]) == {
        "after": "0",
        "status": GrantStatus.CONNECTED,
        "labels": {},
        "limit": 3,
        "client": None,
    }


async def test_a_page_may_end_at_another_clients_grant_and_is_of_one_client_if_asked(stand):
    sandbox = replace(summary("a"), client="sandbox")
    stand.answers["list_tenants"] = [summary("a"), sandbox, summary("b")]
    answer = await stand.ask("GET", "/tenants", b"limit=2")
    assert [(each["tenant"], each["client"]) for each in answer.json["tenants"]] == [
        ("a", "default"),
        ("a", "sandbox"),
    ]
    assert answer.json["next_cursor"] == "a:sandbox"
    await stand.ask("GET", "/tenants", b"cursor=a:sandbox&client=sandbox")
    asked = dict(stand.calls[-1][1:])
    assert (asked["after"], asked["client"]) == ("a@sandbox", "sandbox")


@pytest.mark.parametrize(
    ("method", "path", "call"),
    [
        ("GET", "/tenants/acme", "show_tenant"),
        ("POST", "/tenants/acme/connect-link", "create_link"),
        ("GET", "/tenants/acme/connect-links", "list_links"),
        ("DELETE", "/tenants/acme/connect-links/1", "revoke_link"),
        ("POST", "/tenants/acme/disconnect", "disconnect"),
    ],
)
async def test_a_route_acts_on_the_grant_of_the_client_that_is_named(stand, method, path, call):
    stand.answers["show_tenant"] = summary("acme")
    stand.answers["create_link"] = SimpleNamespace(id="1", token="secret", expires_at=AT)
    stand.answers["list_links"] = []
    grants = {b"": "acme", b"client=default": "acme", b"client=sandbox": "acme@sandbox"}
    for query, grant in grants.items():
        stand.calls.clear()
        assert (await stand.ask(method, path, query)).status < 300
        assert {each[0] for each in stand.calls} >= {call}
        for each in stand.calls:
            assert grant in each, each
            assert {"acme", "acme@sandbox"} & set(each) == {grant}
    stand.calls.clear()
    unknown = await stand.ask(method, path, b"client=nowhere")
    assert (unknown.status, unknown.code) == (404, "unknown-client")
    assert "'nowhere'" in unknown.json["detail"]
    assert stand.calls == []
    unshown = await stand.ask(method, path, b"client=nowhere", ())
    assert unshown.status == 401, "the names are for whoever has a key"


@pytest.mark.parametrize("tenant", ["acme@sandbox", "acme@", "@sandbox", "acme:sandbox"])
async def test_the_id_of_a_grant_is_no_tenants_id(stand, tenant):
    answer = await stand.ask("GET", f"/tenants/{tenant}")
    assert (answer.status, answer.code) == (422, "invalid-request")
    stand.answers["list_tenants"] = []
    answer = await stand.ask("GET", "/tenants", f"cursor={tenant}".encode())
    assert answer.status == (200 if tenant == "acme:sandbox" else 422)
    assert [call[0] for call in stand.calls] in ([], ["list_tenants"])


async def test_the_last_page_has_no_cursor(stand):
    stand.answers["list_tenants"] = [summary("a")]
    assert (await stand.ask("GET", "/tenants", b"limit=1")).json["next_cursor"] is None


async def test_the_list_is_of_the_tenants_that_have_all_labels_asked_for(stand):
    stand.answers["list_tenants"] = []
    await stand.ask("GET", "/tenants", b"label=tier=gold&label=note=a%3Db")
    assert dict(stand.calls[-1][1:])["labels"] == {"tier": "gold", "note": "a=b"}


@pytest.mark.parametrize(
    "query", [b"label=tier", b"label==gold", b"limit=0", b"limit=1001", b"cursor=A", b"status=lost"]
)
async def test_a_malformed_query_asks_for_nothing(stand, query):
    answer = await stand.ask("GET", "/tenants", query)
    assert (answer.status, answer.code) == (422, "invalid-request")
    assert stand.calls == []


async def test_a_tenant_is_shown_without_any_token(stand):
    stand.answers["show_tenant"] = summary("acme")
    answer = await stand.ask("GET", "/tenants/acme")
    assert answer.json == {
        "tenant": "acme",
        "client": "default",
        "status": "connected",
        "scope": "read",
        "expires_at": "2026-01-01T00:00:00Z",
        "connected_at": "2026-01-01T00:00:00Z",
        "refreshed_at": None,
        "last_error": None,
        "renewable": True,
        "refresh_token_expires_at": None,
        "name": None,
        "labels": {},
        "account": None,
        "account_shared_with": [],
        "pending_account": None,
        "allowance": None,
    }


async def test_an_unknown_tenant_is_a_problem_and_goes_to_the_audit_trail(stand):
    stand.answers["show_tenant"] = UnknownTenant("acme")
    answer = await stand.ask("GET", "/tenants/acme")
    assert (answer.status, answer.code, answer.json["tenant"]) == (404, "unknown-tenant", "acme")
    recorder = stand.app.state.services.audit_recorder
    assert recorder.denied == [("UnknownTenant", "/admin/tenants/{tenant}", "id-1")]


async def test_a_connect_link_is_shown_once_and_kept_by_no_cache(stand):
    stand.answers["create_link"] = SimpleNamespace(id="1", token="secret", expires_at=AT)
    answer = await stand.ask("POST", "/tenants/acme/connect-link")
    assert answer.status == 201
    assert answer.json["url"] == "https://broker.example/connect/secret"
    assert answer.headers[b"cache-control"] == b"no-store"
    assert stand.calls == [
        ("create_link", "acme", Actor("key", "id-1"), "maker of key", UNDESCRIBED, None)
    ]


async def test_a_link_may_lead_back_to_an_origin_of_the_list_alone(stand):
    stand.answers["create_link"] = SimpleNamespace(id="1", token="secret", expires_at=AT)
    back = "https://app.example.com/settings"
    body = json.dumps({"return_to": back}).encode()
    answer = await stand.ask("POST", "/tenants/acme/connect-link", body=body)
    assert answer.status == 201
    assert stand.calls[-1][-1] == back
    stand.calls.clear()
    body = json.dumps({"return_to": "https://evil.example/"}).encode()
    answer = await stand.ask("POST", "/tenants/acme/connect-link", body=body)
    assert (answer.status, answer.code) == (422, "invalid-request")
    assert answer.json["detail"].startswith("return_to: must be a URL that begins with one of")
    assert "https://app.example.com" in answer.json["detail"]
    assert stand.calls == []


async def test_connect_links_are_listed_without_their_tokens(stand):
    stand.answers["list_links"] = [
        SimpleNamespace(id="1", token="secret", expires_at=AT, created_by="key", used_at=None)
    ]
    answer = await stand.ask("GET", "/tenants/acme/connect-links")
    assert answer.json["connect_links"] == [
        {"id": "1", "expires_at": "2026-01-01T00:00:00Z", "created_by": "key", "used_at": None}
    ]
    assert stand.calls == [("list_links", "acme", "standing")]


async def test_a_connect_link_is_revoked(stand):
    assert (await stand.ask("DELETE", "/tenants/acme/connect-links/7")).status == 204
    assert stand.calls == [("revoke_link", "acme", "7", Actor("key", "id-1"))]


async def test_a_disconnect_answers_with_what_the_tenant_is_then(stand):
    stand.answers["show_tenant"] = summary("acme")
    answer = await stand.ask("POST", "/tenants/acme/disconnect")
    assert answer.json["tenant"] == "acme"
    assert [call[0] for call in stand.calls] == ["disconnect", "show_tenant"]
    assert stand.calls[0][-2:] == ("acme", Actor("key", "id-1"))


ROUTES = [
    ("GET", "/tenants"),
    ("GET", "/tenants/acme"),
    ("POST", "/tenants/acme/connect-link"),
    ("GET", "/tenants/acme/connect-links"),
    ("DELETE", "/tenants/acme/connect-links/7"),
    ("POST", "/tenants/acme/disconnect"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_only_an_admins_key_does_any_of_this(monkeypatch, method, path):
    stand = Stand(monkeypatch, Scope.TOKEN, Scope.PROXY)
    assert (await stand.ask(method, path)).code == "forbidden"
    assert (await stand.ask(method, path, headers=())).code == "unauthenticated"
    assert stand.calls == []
