"""nginx with the files of ``deploy/nginx``, beside a real broker and the fake API."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from tests.conftest import free_port
from tests.service.nginx import Nginx
from tests.service.wire import RawCaller

STRANGER = "ibk_of-nobody"


@pytest.fixture(scope="module")
def nginx(broker, fake, tmp_path_factory):
    server = Nginx(tmp_path_factory.mktemp("nginx"), broker.port, fake.url)
    yield server.start()
    server.stop()


@pytest.fixture(scope="module")
def key(broker):
    broker.connect("acme")
    return broker.make_key("nginx", ["proxy"], ["acme", "no-*", "new-*"])


@pytest.fixture(scope="module")
def service(nginx, key):
    with client(nginx, key) as service:
        yield service


def client(server, key):
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=30)


def test_a_call_reaches_the_api_with_the_tenants_token(service, broker, key):
    echoed = service.get("/proxy/acme/echo/a%2Fb/%C3%A9?x=1&x=&y=a+b%20c").json()
    assert (echoed["path"], echoed["query"]) == ("/echo/a%2Fb/%C3%A9", "x=1&x=&y=a+b%20c")
    with broker.client() as admin:
        token = admin.get("/token/acme").json()["access_token"]
    authorization = [value for name, value in echoed["headers"] if name == "authorization"]
    assert authorization == [f"Bearer {token}"]
    assert key not in str(echoed)


def test_the_broker_gives_the_token_and_moves_no_bytes(service, broker):
    with broker.client() as admin:

        def proxied():
            lines = admin.get("/metrics").text.splitlines()
            named = 'broker_http_requests_total{method="GET",route="/proxy/{tenant}/{path}"'
            return [line for line in lines if line.startswith(named)]

        before = proxied()
        assert service.get("/proxy/acme/v1/me").status_code == 200
        assert proxied() == before


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("size", [5000, 5_000_000], ids=["in memory", "in a file"])
def test_an_expired_token_is_renewed_once_and_the_call_replayed_once(service, fake, method, size):
    fake.control("expire")
    before = fake.counters()
    answer = service.request(method, "/proxy/acme/echo", content=b"x" * size)
    assert answer.status_code == 200, answer.text
    assert answer.json()["body_size"] == size
    after = fake.counters()
    assert after["refreshes"] == before["refreshes"] + 1
    assert after["api_requests"] == before["api_requests"] + 2


def test_a_hundred_calls_that_see_one_401_cause_one_refresh(service, fake):
    fake.control("expire")
    before = fake.counters()
    with ThreadPoolExecutor(100) as callers:
        calls = [callers.submit(service.get, "/proxy/acme/v1/me") for _ in range(100)]
        statuses = [call.result().status_code for call in calls]
    assert set(statuses) == {200}
    after = fake.counters()
    assert after["refreshes"] == before["refreshes"] + 1
    assert after["api_requests"] <= before["api_requests"] + 200


def test_a_second_401_in_a_row_passes_through_with_its_body(service, fake):
    before = fake.counters()
    demand = 'Bearer error="invalid_token"'
    fake.fail("api", 2, status=401, body="not today", headers={"WWW-Authenticate": demand})
    answer = service.post("/proxy/acme/v1/clients", content=b"{}")
    assert (answer.status_code, answer.text) == (401, "not today")
    assert demand in answer.headers["www-authenticate"]
    assert "broker-error" not in answer.headers
    after = fake.counters()
    assert after["refreshes"] == before["refreshes"] + 1
    assert after["api_requests"] == before["api_requests"] + 2


def test_a_401_for_want_of_scope_passes_through_and_causes_no_refresh(service, fake):
    before = fake.counters()
    demand = 'Bearer error="insufficient_scope"'
    fake.fail("api", 2, status=401, body="more scope", headers={"WWW-Authenticate": demand})
    answer = service.get("/proxy/acme/v1/me")
    assert (answer.status_code, answer.text) == (401, "more scope")
    after = fake.counters()
    assert after["refreshes"] == before["refreshes"]
    assert after["api_requests"] == before["api_requests"] + 2


@pytest.mark.parametrize("status", [400, 403, 404, 409, 429, 500, 502, 503, 504])
def test_an_error_of_the_apis_own_passes_through_with_its_body(service, fake, status):
    before = fake.counters()["api_requests"]
    fake.fail("api", 1, status=status, body="the API says so")
    answer = service.post("/proxy/acme/v1/clients", content=b"{}")
    assert (answer.status_code, answer.text) == (status, "the API says so")
    assert fake.counters()["api_requests"] == before + 1


def refusal(answer):
    body = answer.json()
    assert body.pop("request_id") == answer.headers["x-request-id"]
    names = ("content-type", "broker-error", "www-authenticate", "retry-after", "cache-control")
    return answer.status_code, body, {name: answer.headers.get(name) for name in names}


@pytest.mark.parametrize(
    ("path", "status", "problem"),
    [
        ("/proxy/beta/v1/me", 403, "forbidden"),
        ("/proxy/no-such/v1/me", 404, "unknown-tenant"),
        ("/proxy/new-one/v1/me", 409, "not-connected"),
        ("/proxy/ACME/v1/me", 422, "invalid-request"),
        ("/proxy/acme/%2e%2e/x", 400, "invalid-request"),
    ],
)
def test_what_the_broker_refuses_it_refuses_in_its_own_words(
    service, broker, key, path, status, problem
):
    with broker.client() as admin:
        admin.post("/admin/tenants/new-one/connect-link")
    through_nginx = refusal(service.get(path))
    with broker.client(key) as direct:
        assert through_nginx == refusal(direct.get(path))
    assert through_nginx[0] == status
    assert through_nginx[2]["broker-error"] == problem


@pytest.mark.parametrize("headers", [{}, {"Authorization": f"Bearer {STRANGER}"}])
def test_no_key_and_a_wrong_key_are_refused_in_the_brokers_own_words(nginx, broker, fake, headers):
    before = fake.counters()["api_requests"]
    answer = httpx.post(f"{nginx.url}/proxy/acme/v1/clients", headers=headers, content=b"{}")
    direct = httpx.post(f"{broker.url}/proxy/acme/v1/clients", headers=headers, content=b"{}")
    assert refusal(answer) == refusal(direct)
    assert answer.status_code == 401
    assert answer.headers.get_list("www-authenticate") == ['Bearer realm="ignition-broker"']
    assert fake.counters()["api_requests"] == before


def test_a_token_that_cannot_be_renewed_is_told_as_such(service, broker, fake):
    broker.connect("no-provider")
    fake.control("expire")
    fake.fail("token", 20, status=503)
    answer = service.get("/proxy/no-provider/v1/me")
    assert answer.status_code == 503, answer.text
    assert answer.headers["broker-error"] == "provider-unavailable"
    assert int(answer.headers["retry-after"]) >= 1


def test_a_grant_that_ignition_refused_is_told_as_such(service, broker, fake):
    broker.connect("no-grant")
    fake.control("revoke")
    answer = service.post("/proxy/no-grant/v1/clients", content=b"{}")
    broker.connect("acme")
    assert answer.status_code == 409, answer.text
    assert answer.headers["broker-error"] == "reauthorization-required"


def test_a_key_that_is_held_to_paths_is_held_to_them_by_the_broker(nginx, broker, fake):
    broker.connect("acme")
    held = broker.make_key("held", ["proxy"], ["acme"], paths=["GET /v1/me"])
    with client(nginx, held) as service:
        assert service.get("/proxy/acme/v1/me").status_code == 200
        before = fake.counters()["api_requests"]
        refused = service.get("/proxy/acme/v1/clients")
    assert (refused.status_code, refused.headers["broker-error"]) == (403, "forbidden")
    assert fake.counters()["api_requests"] == before


def test_without_the_broker_nothing_reaches_the_api(fake, key, tmp_path):
    before = fake.counters()["api_requests"]
    server = Nginx(tmp_path, free_port(), fake.url).start()
    try:
        with client(server, key) as service:
            answer = service.post("/proxy/acme/v1/clients", content=b"{}")
    finally:
        server.stop()
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    body = json.loads(answer.text)
    assert body["type"] == "urn:ignition-broker:unavailable"
    assert body["request_id"] == answer.headers["x-request-id"]
    assert fake.counters()["api_requests"] == before


def test_without_the_api_nginx_says_502(broker, key, tmp_path):
    server = Nginx(tmp_path, broker.port, f"http://localhost:{free_port()}").start()
    try:
        with client(server, key) as service:
            assert service.get("/proxy/acme/v1/me").status_code == 502
    finally:
        server.stop()


def test_a_retry_that_the_caller_asks_for_is_left_to_the_broker(service, fake):
    fake.fail("api", 1, status=429, headers={"Retry-After": "0"})
    assert service.get("/proxy/acme/v1/me", headers={"Broker-Retry": "1"}).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Broker-Retry": "1"}], ids=["nginx", "the broker"])
@pytest.mark.parametrize("internal", ["/_ignition/token", "/_ignition/renewed-token"])
def test_an_answer_cannot_redirect_nginx_to_where_tokens_are(service, fake, internal, headers):
    fake.fail("api", 1, status=200, body="mine", headers={"X-Accel-Redirect": internal})
    answer = service.get("/proxy/acme/v1/me", headers=headers)
    assert (answer.status_code, answer.text) == (200, "mine")
    assert "authorization" not in answer.headers
    assert "broker-token-sha256" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/forward-auth/acme",
        "/proxy/../forward-auth/acme",
        "//forward-auth/acme",
        "/%66orward-auth/acme",
        "/forward-auth%2facme",
        "/c/default/forward-auth/acme",
        "//c/default/forward-auth/acme",
        "/c/default/%66orward-auth/acme",
        "/%63/default/forward-auth/acme",
        "/_ignition/token",
        "/_ignition/renewed-token",
    ],
)
def test_no_caller_is_given_a_token_by_nginx(nginx, key, path):
    caller = RawCaller(nginx.port, key)
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close"
    answer = caller.send(head.encode() + b"\r\n\r\n")
    assert answer.status in (401, 404)
    assert answer.values(b"authorization") == []


def test_nginx_passes_on_the_brokers_other_routes(nginx, broker):
    with client(nginx, broker.admin_key) as admin:
        assert admin.get("/readyz").json() == {"status": "ready"}
        assert admin.get("/token/acme").json()["tenant"] == "acme"
        assert "<form" in admin.get("/login").text


def test_a_request_id_is_one_from_end_to_end(service):
    answer = service.get("/proxy/acme/echo", headers={"X-Request-ID": "my-id-7"})
    assert answer.headers.get_list("x-request-id") == ["my-id-7"]
    assert ["x-request-id", "my-id-7"] in answer.json()["headers"]
    odd = service.get("/proxy/acme/echo", headers={"X-Request-ID": "a b<c>"})
    assert odd.headers["x-request-id"] != "a b<c>"
    assert ["x-request-id", odd.headers["x-request-id"]] in odd.json()["headers"]


def test_nginx_logs_no_key_and_no_token(service, nginx, broker, key):
    with broker.client() as admin:
        token = admin.get("/token/acme").json()["access_token"]
    assert key not in nginx.log_text()
    assert token not in nginx.log_text()
