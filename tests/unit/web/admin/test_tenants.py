"""What the admin routes for tenants ask for, and what they answer."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from tests.unit.web.asgi import ask, http_scope
from tests.unit.web.made_up import KEY, Access, admin_app

from ignition_broker.broker.errors import UnknownTenant
from ignition_broker.model import Actor, GrantStatus, Scope, TenantSummary
from ignition_broker.web.admin import tenants

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
            makers=makers,
            public_origin="https://broker.example",
        )
        for name in (
            *("list_tenants", "show_tenant", "create_link", "list_links", "revoke_link"),
            "disconnect",
        ):
            monkeypatch.setattr(tenants, name, self._recording(name))

    def _recording(self, name):
        async def call(_database, *args, **kwargs):
            self.calls.append((name, *args, *kwargs.items()))
            answer = self.answers.get(name)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    async def ask(self, method, path, query=b"", headers=(KEY,)):
        return await ask(self.app, http_scope(method, f"/admin{path}", query, headers))


@pytest.fixture
def stand(monkeypatch):
    return Stand(monkeypatch)


async def test_a_page_of_tenants_says_where_the_next_one_begins(stand):
    stand.answers["list_tenants"] = [summary("a"), summary("b"), summary("c")]
    answer = await stand.ask("GET", "/tenants", b"limit=2&cursor=0&status=connected")
    assert [each["tenant"] for each in answer.json["tenants"]] == ["a", "b"]
    assert answer.json["next_cursor"] == "b"
    assert stand.calls == [
        ("list_tenants", ("after", "0"), ("status", GrantStatus.CONNECTED), ("limit", 3))
    ]


async def test_the_last_page_has_no_cursor(stand):
    stand.answers["list_tenants"] = [summary("a")]
    assert (await stand.ask("GET", "/tenants", b"limit=1")).json["next_cursor"] is None


@pytest.mark.parametrize("query", [b"limit=0", b"limit=1001", b"cursor=A", b"status=lost"])
async def test_a_malformed_query_asks_for_nothing(stand, query):
    answer = await stand.ask("GET", "/tenants", query)
    assert (answer.status, answer.code) == (422, "invalid-request")
    assert stand.calls == []


async def test_a_tenant_is_shown_without_any_token(stand):
    stand.answers["show_tenant"] = summary("acme")
    answer = await stand.ask("GET", "/tenants/acme")
    assert answer.json == {
        "tenant": "acme",
        "status": "connected",
        "scope": "read",
        "expires_at": "2026-01-01T00:00:00Z",
        "connected_at": "2026-01-01T00:00:00Z",
        "refreshed_at": None,
        "last_error": None,
        "renewable": True,
        "refresh_token_expires_at": None,
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
    assert stand.calls == [("create_link", "acme", Actor("key", "id-1"), "maker of key")]


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
