"""Envoy's ext_authz and Traefik's ForwardAuth get the token and forward the calls."""

from __future__ import annotations

import statistics
import time

import httpx
import pytest
from tests.conftest import free_port
from tests.engines.conftest import Engine
from tests.service.wire import RawCaller


@pytest.fixture(scope="module")
def key(broker):
    broker.connect("acme")
    return broker.make_key("engine", ["proxy"], ["acme", "beta"])


@pytest.fixture(scope="module")
def service(engine, key):
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=engine.url, headers=headers, timeout=30) as service:
        yield service


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_a_call_reaches_the_api_with_the_tenants_token_and_nothing_of_the_caller(
    service, broker, key, method
):
    answer = service.request(
        method,
        "/proxy/acme/echo/a/%C3%A9?x=1&x=&y=a+b%20c&z=%2F",
        content=b"x" * 50_000,
        headers={
            "Cookie": "a=b",
            "Forwarded": "for=1.2.3.4",
            "X-Forwarded-For": "1.2.3.4",
            "X-Real-IP": "1.2.3.4",
            "X-Mine": "1",
            "X-Request-ID": "my-id",
        },
    )
    assert answer.status_code == 200, answer.text
    echoed = answer.json()
    assert echoed["method"] == method
    assert (echoed["path"], echoed["query"]) == ("/echo/a/%C3%A9", "x=1&x=&y=a+b%20c&z=%2F")
    assert echoed["body_size"] == 50_000
    with broker.client() as admin:
        token = admin.get("/token/acme").json()["access_token"]
    headers = dict(echoed["headers"])
    assert headers["authorization"] == f"Bearer {token}"
    assert (headers["x-mine"], headers["x-request-id"]) == ("1", "my-id")
    assert key not in str(echoed)
    assert "1.2.3.4" not in str(echoed)
    assert "cookie" not in headers
    unexpected = {name for name in headers if name.startswith(("x-forwarded", "x-envoy"))}
    assert unexpected == set()


def test_no_key_a_wrong_key_and_another_tenants_key_are_refused_by_the_broker(engine, service):
    url = f"{engine.url}/proxy/acme/v1/me"
    for headers in ({}, {"Authorization": "Bearer ibk_wrong"}):
        answer = httpx.post(url, headers=headers, content=b"{}")
        assert answer.status_code == 401
        assert answer.json()["type"] == "urn:ignition-broker:unauthenticated"
    assert service.get("/proxy/other/v1/me").json()["type"] == "urn:ignition-broker:forbidden"
    assert service.get("/proxy/beta/v1/me").json()["type"] == "urn:ignition-broker:unknown-tenant"


def test_without_the_broker_nothing_reaches_the_api(engine, fake, key, tmp_path):
    before = fake.counters()["api_requests"]
    with Engine(engine.name, free_port(), fake.url, tmp_path).running() as alone:
        answer = httpx.get(
            f"{alone.url}/proxy/acme/v1/me", headers={"Authorization": f"Bearer {key}"}
        )
    assert answer.status_code in {500, 502, 503}
    print(engine.name, "says", answer.status_code)
    assert fake.counters()["api_requests"] == before


def test_the_first_event_does_not_wait_for_the_second(service):
    waits = []
    for _ in range(5):
        began_at = time.monotonic()
        with service.stream("GET", "/proxy/acme/v1/stream?count=2&interval_ms=300") as events:
            next(events.iter_raw())
            waits.append(time.monotonic() - began_at)
    print(f"first event after {statistics.median(waits) * 1000:.1f} ms")
    assert statistics.median(waits) < 0.1


def test_a_large_answer_comes_whole_and_a_cookie_does_not(service, fake):
    fake.fail("api", 1, status=None, headers={"Set-Cookie": "a=b"})
    with service.stream("GET", "/proxy/acme/v1/bytes?size=100000000") as answer:
        assert "set-cookie" not in answer.headers
        assert sum(len(chunk) for chunk in answer.iter_raw()) == 100_000_000


@pytest.mark.parametrize(
    "path",
    [
        b"/..",
        b"/../x",
        b"/%2e%2e/x",
        b"/%252e%252e/x",
        b"/a%2f..%2f..%2fx",
        b"/..;/x",
        b"/a\\..\\x",
        b"/%5c..%5cx",
        b"//evil.example/x",
    ],
)
def test_no_path_leaves_the_base(engine, key, path):
    caller = RawCaller(engine.port, key)
    answer = caller.call(b"GET /echo/a/b" + path)
    if answer.status == 200:
        assert b'"path":"/echo/a' in answer.body, answer.body
        assert b".." not in answer.body
    else:
        assert answer.status in {400, 404}


def test_no_caller_is_given_a_token(engine, key):
    paths = ("/forward-auth/acme", "//forward-auth/acme", "/x/../forward-auth/acme")
    for path in (*paths, "/c/default/forward-auth/acme"):
        answer = RawCaller(engine.port, key).send(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        assert answer.status != 200
        assert answer.values(b"authorization") == []


def test_a_401_passes_through_and_what_follows_it_is_as_documented(engine, service, fake, broker):
    fake.control("expire")
    before = fake.counters()
    first = service.post("/proxy/acme/echo", content=b"x")
    second = service.post("/proxy/acme/echo", content=b"x")
    assert first.status_code == 401
    assert first.json()["error"] == "invalid_token"
    refreshes = fake.counters()["refreshes"] - before["refreshes"]
    if engine.name == "envoy":
        assert (second.status_code, refreshes) == (200, 1)
    else:
        assert (second.status_code, refreshes) == (401, 0)
    with broker.client() as admin:
        assert admin.post("/token/acme/refresh").status_code == 200


def test_a_redirect_into_the_api_leads_through_envoy(engine, service):
    if engine.name == "envoy":
        answer = service.post("/proxy/acme/v1/clients", json={"name": "Contoso"})
        if answer.status_code == 401:
            answer = service.post("/proxy/acme/v1/clients", json={"name": "Contoso"})
        assert answer.headers["location"].startswith("/proxy/acme/v1/clients/")
        link = service.get("/proxy/acme/v1/proposals?page=2").headers["link"]
        assert "</proxy/acme/v1/proposals?" in link
        assert "http" not in link
