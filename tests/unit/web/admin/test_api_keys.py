"""What the admin routes for API keys ask for, and what they answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from tests.unit.web.asgi import ask, http_scope, pieces
from tests.unit.web.made_up import KEY, Access, admin_app

from ignition_broker.broker.callers import api_key_rotation
from ignition_broker.broker.callers import api_keys as broker_api_keys
from ignition_broker.broker.errors import Conflict, NotFound
from ignition_broker.model import Actor, ApiKey, Scope

AT = datetime(2026, 1, 1, tzinfo=UTC)
ROW = ApiKey("billing", ("token",), ("acme",), AT, None, None, None, None)


class Stand:
    def __init__(self, monkeypatch, *scopes: Scope) -> None:
        self.calls: list[tuple] = []
        self.answers: dict[str, object] = {}
        self.access = Access(*(scopes or (Scope.ADMIN,)))
        self.app = admin_app(self.access)
        for name in ("list_api_keys", "create_api_key", "revoke_api_key"):
            monkeypatch.setattr(broker_api_keys, name, self._recording(name))
        name = "rotate_api_key" if hasattr(api_key_rotation, "rotate_api_key") else "rotate_key"
        monkeypatch.setattr(api_key_rotation, name, self._recording("rotate"))

    def _recording(self, name):
        async def call(_database, *args, **kwargs):
            self.calls.append((name, args, kwargs))
            answer = self.answers.get(name)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    async def ask(self, method, path, body=None, headers=(KEY,)):
        messages = None
        if body is not None:
            content = json.dumps(body).encode()
            messages = pieces(content)
            headers = (
                *headers,
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(content)),
            )
        return await ask(self.app, http_scope(method, f"/admin{path}", headers=headers), messages)


@pytest.fixture
def stand(monkeypatch):
    return Stand(monkeypatch)


async def test_keys_are_listed_without_what_opens_them(stand):
    stand.answers["list_api_keys"] = [ROW]
    answer = await stand.ask("GET", "/api-keys")
    (row,) = answer.json["api_keys"]
    assert row["name"] == "billing"
    assert not {"key", "key_hash"} & set(row)


async def test_a_new_key_is_shown_once_and_kept_by_no_cache(stand):
    stand.answers["create_api_key"] = (ROW, "ibk_secret")
    body = {"name": "billing", "scopes": ["token"], "tenants": ["acme"], "paths": ["GET /v1/*"]}
    answer = await stand.ask("POST", "/api-keys", body)
    assert (answer.status, answer.json["key"]) == (201, "ibk_secret")
    assert answer.headers[b"cache-control"] == b"no-store"
    ((_name, _args, asked),) = stand.calls
    share = {"allowance_weight": 1, "allowance_reserve": 0}
    assert asked == {**body, **share, "expires_at": None, "actor": Actor("key", "id-1")}


async def test_a_name_that_is_taken_is_a_conflict(stand):
    stand.answers["create_api_key"] = Conflict("There is one of that name.")
    answer = await stand.ask("POST", "/api-keys", {"name": "billing", "scopes": ["token"]})
    assert (answer.status, answer.code) == (409, "conflict")


@pytest.mark.parametrize(
    "body", [[], {}, {"name": "x"}, {"name": "x", "scopes": ["token"], "expires_at": "2030-01-01"}]
)
async def test_a_malformed_body_makes_no_key(stand, body):
    answer = await stand.ask("POST", "/api-keys", body)
    assert (answer.status, answer.code) == (422, "invalid-request")
    assert stand.calls == []


async def test_a_rotated_key_is_forgotten_by_this_process_at_once(stand):
    stand.answers["rotate"] = (ROW, "ibk_new")
    answer = await stand.ask("POST", "/api-keys/billing/rotate", {"grace_seconds": 60})
    assert (answer.status, answer.json["key"]) == (201, "ibk_new")
    assert answer.headers[b"cache-control"] == b"no-store"
    ((_name, _args, asked),) = stand.calls
    assert asked["grace_seconds"] == 60
    assert stand.access.forgotten == ["billing"]


async def test_without_a_body_a_rotation_has_the_default_grace(stand):
    stand.answers["rotate"] = (ROW, "ibk_new")
    await stand.ask("POST", "/api-keys/billing/rotate")
    ((_name, _args, asked),) = stand.calls
    assert asked["grace_seconds"] == api_key_rotation.DEFAULT_GRACE_SECONDS


async def test_a_revoked_key_is_forgotten_by_this_process_at_once(stand):
    assert (await stand.ask("DELETE", "/api-keys/billing")).status == 204
    assert stand.calls == [("revoke_api_key", ("billing", Actor("key", "id-1")), {})]
    assert stand.access.forgotten == ["billing"]


async def test_a_key_that_is_not_there_is_not_found(stand):
    stand.answers["revoke_api_key"] = NotFound("No such key.")
    assert (await stand.ask("DELETE", "/api-keys/other")).code == "not-found"
    assert (await stand.ask("DELETE", "/api-keys/-bad")).code == "invalid-request"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api-keys", None),
        ("POST", "/api-keys", {"name": "x", "scopes": ["admin"]}),
        ("POST", "/api-keys/x/rotate", None),
        ("DELETE", "/api-keys/x", None),
    ],
)
async def test_only_an_admins_key_does_any_of_this(monkeypatch, method, path, body):
    stand = Stand(monkeypatch, Scope.TOKEN, Scope.PROXY)
    assert (await stand.ask(method, path, body)).code == "forbidden"
    assert (await stand.ask(method, path, body, headers=())).code == "unauthenticated"
    assert stand.calls == []
