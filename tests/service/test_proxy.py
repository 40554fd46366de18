"""The proxy between a real broker and the fake API."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.conftest import wait_until


@pytest.fixture(scope="module")
def service(broker):
    broker.connect("acme")
    with broker.client(broker.make_key("proxy", ["proxy"], ["acme"])) as client:
        yield client


def test_a_call_reaches_the_api_byte_for_byte(service):
    answer = service.get("/proxy/acme/echo/a%2Fb/%C3%A9?x=1&x=&y=a+b%20c")
    assert answer.status_code == 200, answer.text
    echoed = answer.json()
    assert "a%2Fb/%C3%A9" in str(echoed)
    assert "x=1&x=&y=a+b%20c" in str(echoed)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_an_expired_token_is_renewed_once_and_the_call_replayed(service, fake, method):
    fake.control("expire")
    before = fake.counters()["refreshes"]
    answer = service.request(method, "/proxy/acme/echo", content=b"x" * 5000)
    assert answer.status_code == 200, answer.text
    assert answer.json()["body_size"] == 5000
    assert fake.counters()["refreshes"] == before + 1


def test_a_body_beyond_the_limit_is_not_replayed_but_the_token_is_renewed(service, fake):
    fake.control("expire")
    body = b"x" * (2 << 20)
    answer = service.post("/proxy/acme/echo", content=body)
    assert answer.status_code == 401
    assert answer.headers["broker-error"] == "not-replayed"
    again = service.post("/proxy/acme/echo", content=body)
    assert again.status_code == 200
    assert again.json()["body_size"] == len(body)


def test_two_401_in_a_row_pass_through(broker, fake, service):
    broker.connect("twice")
    before = fake.counters()
    fake.fail("api", 2, status=401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
    with broker.client() as admin:
        answer = admin.get("/proxy/twice/v1/me")
    assert answer.status_code == 401
    assert "broker-error" not in answer.headers
    assert fake.counters()["refreshes"] == before["refreshes"] + 1


def test_a_storm_of_401_causes_one_refresh_and_a_pause(broker, fake):
    broker.connect("storm")
    before = fake.counters()["refreshes"]
    fake.fail("api", 200, status=401)
    began_at = time.monotonic()
    with broker.client() as admin, ThreadPoolExecutor(16) as callers:
        answers = list(callers.map(lambda _: admin.get("/proxy/storm/v1/me"), range(50)))
    pauses_over = int(math.log2(1 + time.monotonic() - began_at))
    assert {answer.status_code for answer in answers} == {401}
    assert 1 <= fake.counters()["refreshes"] - before <= 1 + pauses_over


def test_an_expiry_shortly_after_a_storm_is_mended(broker, fake):
    broker.connect("mended")
    with broker.client() as admin:
        fake.fail("api", 2, status=401)
        assert admin.get("/proxy/mended/v1/me").status_code == 401
        before = fake.counters()["refreshes"]
        # Without an accepted token in between, it is renewed when the pause of a second is over.
        fake.control("expire")
        wait_until(
            lambda: admin.get("/proxy/mended/v1/me").status_code == 200, 2, "the token's renewal"
        )
        assert fake.counters()["refreshes"] == before + 1


def test_an_expiry_right_after_a_good_answer_is_mended_at_once(broker, fake):
    broker.connect("good")
    with broker.client() as admin:
        fake.fail("api", 2, status=401)
        assert admin.get("/proxy/good/v1/me").status_code == 401
        assert admin.get("/proxy/good/v1/me").status_code == 200
        fake.control("expire")
        assert admin.get("/proxy/good/v1/me").status_code == 200


def test_a_401_for_want_of_scope_causes_no_refresh(broker, fake):
    broker.connect("scope")
    before = fake.counters()["refreshes"]
    demand = 'Bearer error="insufficient_scope"'
    fake.fail("api", 1, status=401, headers={"WWW-Authenticate": demand})
    with broker.client() as admin:
        answer = admin.get("/proxy/scope/v1/me")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, demand)
    assert fake.counters()["refreshes"] == before


def test_a_403_that_says_invalid_token_is_mended_as_a_401_is(broker, fake):
    broker.connect("expired403")
    before = fake.counters()["refreshes"]
    demand = 'Bearer realm="api", error="invalid_token", error_description="expired"'
    fake.fail("api", 1, status=403, headers={"WWW-Authenticate": demand})
    with broker.client() as admin:
        answer = admin.get("/proxy/expired403/v1/me")
    assert answer.status_code == 200, answer.text
    assert fake.counters()["refreshes"] == before + 1


@pytest.mark.parametrize("demand", [None, 'Bearer error="insufficient_scope"', "Bearer"])
def test_any_other_403_comes_back_and_causes_no_refresh(broker, fake, demand):
    broker.connect("forbidden403")
    before = fake.counters()["refreshes"]
    headers = {} if demand is None else {"WWW-Authenticate": demand}
    fake.fail("api", 1, status=403, body="not yours", headers=headers)
    with broker.client() as admin:
        answer = admin.get("/proxy/forbidden403/v1/me")
    assert (answer.status_code, answer.text) == (403, "not yours")
    assert answer.headers.get("www-authenticate") == demand
    assert fake.counters()["refreshes"] == before


def test_the_callers_key_and_cookies_do_not_go_out(service):
    echoed = service.get("/proxy/acme/echo", headers={"Cookie": "a=b", "X-Mine": "1"}).json()
    names = {name.lower() for name, _ in echoed["headers"]}
    assert "x-mine" in names
    assert "cookie" not in names
    assert "ibk_" not in str(echoed)


@pytest.mark.parametrize(
    "path",
    ["/..%2f..%2fsecret", "/%2e%2e/x", "/%252e%252e/x", "/a/..;x/b", "/a%5c..%5cb", "//evil"],
)
def test_a_path_that_could_leave_the_base_is_refused(service, path):
    answer = service.get(f"/proxy/acme{path}")
    assert answer.status_code == 400
    assert answer.headers["broker-error"] == "invalid-request"


def test_a_large_answer_is_streamed_whole(service):
    with service.stream("GET", "/proxy/acme/v1/bytes?size=20000000") as answer:
        assert answer.headers["content-length"] == "20000000"
        assert sum(len(chunk) for chunk in answer.iter_raw()) == 20_000_000


def test_errors_of_the_brokers_own_are_marked(broker, service):
    forbidden = service.get("/proxy/other/v1/me")
    assert (forbidden.status_code, forbidden.headers["broker-error"]) == (403, "forbidden")
    with broker.client("ibk_wrong") as stranger:
        unknown = stranger.get("/proxy/acme/v1/me")
    assert (unknown.status_code, unknown.headers["broker-error"]) == (401, "unauthenticated")
    assert unknown.headers["www-authenticate"].startswith("Bearer")
