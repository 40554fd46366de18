"""The admin API, and each documented problem code."""

from __future__ import annotations

import json

import pytest
from tests.conftest import sha256


def code(answer) -> str:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["request_id"] == answer.headers["x-request-id"]
    assert {"type", "title", "detail"} <= set(body)
    return body["type"].removeprefix("urn:ignition-broker:")


@pytest.mark.parametrize(
    ("method", "path", "status", "problem"),
    [
        ("GET", "/nowhere", 404, "not-found"),
        ("PUT", "/healthz", 405, "method-not-allowed"),
        ("GET", "/token/BAD", 422, "invalid-request"),
        ("GET", "/token/acme?min_ttl=x", 422, "invalid-request"),
        ("GET", "/token/nobody", 404, "unknown-tenant"),
        ("GET", "/proxy/nobody/x", 404, "unknown-tenant"),
        ("GET", "/proxy/BAD/x", 422, "invalid-request"),
        ("GET", "/admin/tenants/nobody", 404, "unknown-tenant"),
        ("POST", "/admin/tenants/nobody/disconnect", 404, "unknown-tenant"),
        ("DELETE", "/admin/api-keys/nobody", 404, "not-found"),
        ("GET", "/admin/tenants?status=odd", 422, "invalid-request"),
        ("GET", "/admin/audit?cursor=odd", 422, "invalid-request"),
        ("GET", "/admin/tenants?limit=0", 422, "invalid-request"),
    ],
)
def test_bad_requests_are_problems(broker, method, path, status, problem):
    with broker.client() as admin:
        answer = admin.request(method, path)
    assert (answer.status_code, code(answer)) == (status, problem)


@pytest.mark.parametrize(
    "body",
    [
        "[" * 30_000,
        "[" * 900 + "]" * 900,
        '{"name":' * 8_000,
        '{"name":' * 300 + "1" + "}" * 300,
        '{"name": "x", "scopes": ' + "[" * 600 + "]" * 600 + "}",
        '{"rejected_token_sha256":' * 300 + "1" + "}" * 300,
    ],
    ids=["endless", "closed", "objects", "whole objects", "a field", "a digest"],
)
def test_a_body_that_is_nested_deeply_is_a_malformed_one(broker, body):
    with broker.client() as admin:
        admin.headers["Content-Type"] = "application/json"
        for path in ("/admin/api-keys", "/token/nobody/refresh"):
            answer = admin.post(path, content=body)
            assert answer.status_code in {400, 422}, path
            assert code(answer) == "invalid-request"
    assert "RecursionError" not in broker.log_text()


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_and_nothing_is_made(broker, is_chunked):
    new = {"name": "large", "scopes": ["token"], "tenants": ["a" * 70_000]}
    content = json.dumps(new).encode()
    with broker.client() as admin:
        answer = admin.post(
            "/admin/api-keys",
            content=iter([content[:1000], content[1000:]]) if is_chunked else content,
            headers={"Content-Type": "application/json"},
        )
        assert (answer.status_code, code(answer)) == (413, "body-too-large")
        assert "large" not in {
            row["name"] for row in admin.get("/admin/api-keys").json()["api_keys"]
        }


def test_keys_cover_their_scopes_and_tenants_alone(broker):
    broker.connect("acme")
    broker.connect("beta-1")
    key = broker.make_key("beta", ["token"], ["beta-*"])
    with broker.client(key) as service:
        assert service.get("/token/beta-1").status_code == 200
        for answer in (
            service.get("/token/acme"),
            service.get("/proxy/beta-1/v1/me"),
            service.get("/forward-auth/beta-1"),
            service.get("/admin/tenants"),
            service.post("/token/beta-1/refresh"),
        ):
            assert (answer.status_code, code(answer)) == (403, "forbidden")


def test_no_key_a_wrong_one_an_expired_one_and_a_revoked_one_are_401(broker):
    key = broker.make_key("gone", ["token"], ["*"])
    with broker.client(key) as service:
        assert service.get("/token/nobody").status_code == 404
        with broker.client() as admin:
            assert admin.delete("/admin/api-keys/gone").status_code == 204
        answer = service.get("/token/nobody")
    assert (answer.status_code, code(answer)) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    with broker.client() as admin:
        past = admin.post(
            "/admin/api-keys",
            json={
                "name": "past",
                "scopes": ["token"],
                "tenants": ["*"],
                "expires_at": "2020-01-01T00:00:00Z",
            },
        )
        assert past.status_code == 422
        assert "expires_at" in past.json()["detail"]


def test_a_key_is_shown_once_and_its_name_is_its_own(broker):
    with broker.client() as admin:
        new = {"name": "mine", "scopes": ["token"], "tenants": ["acme"]}
        created = admin.post("/admin/api-keys", json=new)
        assert created.headers["cache-control"] == "no-store"
        assert created.json()["key"].startswith("ibk_")
        assert created.json()["key"] not in admin.get("/admin/api-keys").text
        assert admin.post("/admin/api-keys", json=new).status_code == 409
        bad = admin.post("/admin/api-keys", json={**new, "name": "x", "scopes": ["root"]})
        assert bad.status_code == 422
        assert "scopes" in bad.json()["detail"]


@pytest.mark.parametrize("name", ["bootstrap-admin", "cli", "CLI", "broker", "unknown"])
def test_no_key_is_called_like_somebody_else_in_the_audit_trail(broker, name):
    with broker.client() as admin:
        new = {"name": name, "scopes": ["admin"], "tenants": ["*"]}
        refused = admin.post("/admin/api-keys", json=new)
        assert refused.status_code == 422
        assert refused.json()["detail"].startswith("name: ")
    ended = broker.command("api-keys", "create", name, "--scopes", "admin")
    assert ended.returncode != 0
    assert "name: " in ended.stderr


def test_a_keys_paths_are_listed_audited_and_forgotten_with_its_name(broker):
    new = {"name": "held", "scopes": ["proxy"], "tenants": ["acme"]}
    with broker.client() as admin:
        rules = ["GET /v1/*", "POST /v1/proposals", "GET /v1/*"]
        created = admin.post("/admin/api-keys", json={**new, "paths": rules})
        assert created.status_code == 201
        assert created.json()["paths"] == rules[:2]
        assert listed_paths(admin, "held") == rules[:2]
        trail = admin.get("/admin/audit?limit=10").json()["events"]
        event = next(event for event in trail if event["action"] == "api_key_create")
        assert event["detail"]["paths"] == rules[:2]
        assert admin.delete("/admin/api-keys/held").status_code == 204
        assert admin.post("/admin/api-keys", json=new).json()["paths"] is None
        assert listed_paths(admin, "held") is None


def listed_paths(admin, name: str):
    rows = admin.get("/admin/api-keys").json()["api_keys"]
    return next(row["paths"] for row in rows if row["name"] == name)


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_an_expiry_that_utc_cannot_tell_is_malformed(broker, moment):
    new = {"name": "ever", "scopes": ["token"], "tenants": ["acme"], "expires_at": moment}
    with broker.client() as admin:
        answer = admin.post("/admin/api-keys", json=new)
        assert (answer.status_code, code(answer)) == (422, "invalid-request")
        assert answer.json()["detail"].startswith("expires_at: ")
        rotated = admin.post("/admin/api-keys/ever/rotate", json={"expires_at": moment})
        assert (rotated.status_code, rotated.json()["detail"]) == (422, answer.json()["detail"])


def test_a_method_that_a_path_lacks_is_told_all_that_it_has(broker):
    with broker.client() as admin:
        answer = admin.put("/admin/api-keys")
    assert (answer.status_code, code(answer)) == (405, "method-not-allowed")
    assert answer.headers["allow"] == "GET, HEAD, POST"


def test_the_document_names_each_error_of_a_route_and_the_proxy(broker):
    with broker.client() as anyone:
        document = anyone.get("/openapi.json").json()
    answers = document["paths"]["/token/{tenant}"]["get"]["responses"]
    assert set(answers) == {"200", "400", "401", "403", "404", "409", "422", "429", "502", "503"}
    assert answers["401"]["headers"]["WWW-Authenticate"]["required"]
    assert answers["503"]["headers"]["Retry-After"]["required"]
    assert answers["200"]["headers"]["Cache-Control"]["schema"]["const"] == "no-store"
    assert "`not-connected`" in answers["409"]["description"]
    assert set(document["paths"]["/proxy/{tenant}/{path}"]) >= {"get", "post", "delete"}
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                assert "X-Request-ID" in answer["headers"]
                if status.isdecimal() and int(status) >= 400:
                    assert "application/problem+json" in answer["content"]


@pytest.mark.parametrize(
    ("scopes", "paths", "field", "mend"),
    [
        (["proxy"], [], "paths", "at least one rule, such as 'GET /v1/*'"),
        (["proxy"], ["GET /v1/*", "get /v1"], "paths", "'get /v1' is no rule"),
        (["proxy"], ["GET /v1/../x"], "paths", "holds '//', '.' or '..'"),
        (["proxy"], ["GET /x"] * 101, "paths", "100 rules at most"),
        (["proxy"], "GET /v1/*", "paths", "list"),
        (["token", "proxy"], ["GET /v1/*"], "scopes", "'proxy' alone"),
        (["token"], ["GET /v1/*"], "scopes", "'proxy' alone"),
        (["admin", "proxy"], ["GET /v1/*"], "scopes", "'proxy' alone"),
    ],
)
def test_paths_that_would_hold_nothing_are_named(broker, scopes, paths, field, mend):
    new = {"name": "unheld", "scopes": scopes, "tenants": ["acme"], "paths": paths}
    with broker.client() as admin:
        answer = admin.post("/admin/api-keys", json=new)
        names = {row["name"] for row in admin.get("/admin/api-keys").json()["api_keys"]}
    assert (answer.status_code, code(answer)) == (422, "invalid-request")
    assert answer.json()["detail"].startswith(f"{field}: ")
    assert mend in answer.json()["detail"]
    assert "unheld" not in names


def test_tenants_are_paged_and_filtered(broker):
    with broker.client() as admin:
        for number in range(5):
            assert admin.post(f"/admin/tenants/page-{number}/connect-link").status_code == 201
        seen, cursor = [], ""
        while cursor is not None:
            page = admin.get("/admin/tenants", params={"limit": 2, "cursor": cursor}).json()
            assert len(page["tenants"]) <= 2
            seen += [row["tenant"] for row in page["tenants"]]
            cursor = page["next_cursor"]
        assert seen == sorted(set(seen))
        assert {f"page-{number}" for number in range(5)} <= set(seen)
        filtered = admin.get("/admin/tenants?status=disconnected").json()["tenants"]
        assert {row["status"] for row in filtered} == {"disconnected"}


def test_the_disconnected_are_those_that_were_and_those_that_never_were_connected(broker):
    """In one order, whichever they are."""
    of_all = [f"apart-{number}" for number in range(6)]
    with broker.client() as admin:
        for tenant in of_all:
            assert admin.post(f"/admin/tenants/{tenant}/connect-link").status_code == 201
        for tenant in of_all[1::2]:
            broker.connect(tenant)
        for tenant in (of_all[1], of_all[5]):
            admin.post(f"/admin/tenants/{tenant}/disconnect").raise_for_status()
        found, cursor = [], ""
        while cursor is not None:
            asked = {"status": "disconnected", "limit": 2, "cursor": cursor}
            page = admin.get("/admin/tenants", params=asked).json()
            found += [row["tenant"] for row in page["tenants"]]
            cursor = page["next_cursor"]
        assert [tenant for tenant in found if tenant in of_all] == [
            tenant for tenant in of_all if tenant != of_all[3]
        ]
        assert len(found) == len(set(found))


def test_the_audit_trail_is_newest_first_and_paged(broker):
    with broker.client() as admin:
        admin.post("/admin/tenants/audited/connect-link", headers={"X-Request-ID": "my-id-1"})
        trail = admin.get("/admin/audit?tenant=audited&limit=1").json()
        (event,) = trail["events"]
        assert (event["action"], event["tenant"]) == ("connect_link_create", "audited")
        assert event["request_id"] == "my-id-1"
        ids, cursor = [], ""
        for _ in range(3):
            page = admin.get(f"/admin/audit?limit=1{cursor}").json()
            ids += [event["id"] for event in page["events"]]
            cursor = f"&cursor={page['next_cursor']}"
    assert ids == sorted(set(ids), reverse=True)
    assert len(ids) == 3


def test_request_ids_are_echoed_when_sane(broker):
    with broker.client() as admin:
        assert admin.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == (
            "abc-1"
        )
        odd = admin.get("/healthz", headers={"X-Request-ID": "a b<c>"}).headers["x-request-id"]
    assert odd != "a b<c>"
    assert odd


def test_forward_auth_gives_the_token_as_a_header(broker):
    broker.connect("forwarded")
    with broker.client(broker.make_key("nginx", ["proxy"], ["forwarded"])) as service:
        answer = service.get("/forward-auth/forwarded")
    assert answer.status_code == 200
    assert answer.content == b""
    scheme, _, token = answer.headers["authorization"].partition(" ")
    assert scheme == "Bearer"
    assert answer.headers["broker-token-sha256"] == sha256(token)


def test_forward_auth_renews_the_token_that_its_own_header_names(broker, fake):
    broker.connect("named")
    with broker.client(broker.make_key("traefik", ["proxy"], ["named"])) as service:
        first = service.get("/forward-auth/named").headers
        before = fake.counters()["refreshes"]
        query = {"rejected_token_sha256": first["broker-token-sha256"]}
        renewed = [service.get("/forward-auth/named", params=query).headers for _ in range(3)]
    assert {headers["authorization"] for headers in renewed} != {first["authorization"]}
    assert len({headers["broker-token-sha256"] for headers in renewed}) == 1
    assert fake.counters()["refreshes"] == before + 1


def test_forward_auth_gives_no_token_to_a_key_that_is_held_to_paths(broker):
    broker.connect("forwarded-held")
    key = broker.make_key("held-nginx", ["proxy"], ["forwarded-held"], paths=["* /*"])
    with broker.client(key) as service:
        for query in ("", "?rejected_token_sha256=" + "0" * 64):
            answer = service.get("/forward-auth/forwarded-held" + query)
            assert (answer.status_code, code(answer)) == (403, "forbidden")
            assert "held to paths" in answer.json()["detail"]
            assert "authorization" not in answer.headers
        assert service.get("/token/forwarded-held").status_code == 403
        assert service.post("/token/forwarded-held/refresh").status_code == 403
        assert service.get("/admin/tenants").status_code == 403
        assert service.get("/proxy/forwarded-held/v1/me").status_code == 200


def test_ready_metrics_and_docs_answer(broker):
    with broker.client() as anyone:
        assert anyone.get("/readyz").json() == {"status": "ready"}
        assert "broker_http_requests_total" in anyone.get("/metrics").text
        assert "/token/{tenant}" in anyone.get("/openapi.json").text
        assert anyone.get("/docs").status_code == 200


def test_a_stop_is_clean(broker):
    assert broker.stop() == 0
