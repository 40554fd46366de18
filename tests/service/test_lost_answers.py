"""Answers lost after the request went out, with tokens that live for seconds."""

from __future__ import annotations

import time

import pytest
from tests.conftest import wait_until

LIFETIME = 6


@pytest.fixture(scope="module")
def fake_options():
    return {"access_token_lifetime_seconds": LIFETIME}


@pytest.fixture
def admin(broker):
    with broker.client() as client:
        yield client


@pytest.fixture(autouse=True)
def nobody_else(admin):
    """Ends the grants that a test leaves: their background renewals would meet another's faults."""
    yield
    for tenant in admin.get("/admin/tenants").json()["tenants"]:
        assert admin.post(f"/admin/tenants/{tenant['tenant']}/disconnect").status_code == 200


def refresh_events(admin, tenant: str) -> list[dict]:
    events = admin.get(f"/admin/audit?tenant={tenant}").json()["events"]
    return [event for event in reversed(events) if event["action"] == "refresh"]


def presented(fake) -> list[list[float]]:
    grant = fake.http.get("/control/ledger").json()["grants"][-1]
    return [token["presented_at"] for token in grant["refresh_tokens"]]


def test_with_a_live_token_the_refresh_token_is_not_used_again_before_its_end(broker, fake, admin):
    broker.connect("live")
    began = time.monotonic()
    token = admin.get("/token/live").json()["access_token"]
    fake.fail("token", 1, drop="before")
    asked = fake.counters()["token_requests"]
    assert admin.post("/token/live/refresh").status_code == 503
    assert fake.counters()["token_requests"] == asked + 1
    while time.monotonic() - began < LIFETIME - 0.6:
        answer = admin.get("/token/live?min_ttl=60")
        assert (answer.status_code, answer.json().get("access_token")) == (200, token)
        assert fake.counters()["token_requests"] == asked + 1
        time.sleep(0.1)
    wait_until(lambda: admin.get("/token/live").json().get("access_token") != token, 3)
    assert admin.get("/token/live").status_code == 200
    assert fake.counters()["token_requests"] == asked + 2
    lost, renewed = refresh_events(admin, "live")
    assert (lost["outcome"], lost["detail"]["access_token_is_live"]) == ("answer_lost", True)
    assert (renewed["outcome"], renewed["detail"]["after_lost_answer"]) == ("renewed", True)


def test_with_no_live_token_one_try_is_made_at_once_and_the_caller_sees_nothing(
    broker, fake, admin
):
    fake.control("options", access_token_lifetime_seconds=1)
    try:
        broker.connect("dead")
    finally:
        fake.control("options", access_token_lifetime_seconds=LIFETIME)
    fake.fail("token", 1, drop="before")
    time.sleep(1.1)
    assert admin.get("/token/dead").status_code == 200
    outcomes = [event["outcome"] for event in refresh_events(admin, "dead")]
    assert "answer_lost" in outcomes
    assert outcomes[-1] == "renewed"


def test_a_spent_refresh_token_whose_answer_was_lost_ends_in_a_refusal_that_says_so(
    broker, fake, admin
):
    fake.control("options", access_token_lifetime_seconds=1)
    try:
        broker.connect("spent")
    finally:
        fake.control("options", access_token_lifetime_seconds=LIFETIME)
    fake.fail("token", 1, drop="after")
    time.sleep(1.1)
    wait_until(lambda: admin.get("/token/spent").status_code == 409, 5)
    first, *_others = presented(fake)
    assert len(first) == 2, "one try, and no more"
    lost, refused = refresh_events(admin, "spent")
    assert lost["outcome"] == "answer_lost"
    assert (refused["outcome"], refused["detail"]["after_lost_answer"]) == ("refused", True)
    shown = admin.get("/admin/tenants/spent").json()
    assert shown["status"] == "reauthorization_required"
    assert "earlier refresh had been lost" in shown["last_error"]


def test_behind_a_5xx_with_no_live_token_one_try_is_made_at_once(broker, fake, admin):
    # Ordered ahead of the connection, whose own request takes the first: so short a token is
    # renewed in the background soon after it.
    fake.fail("token", 1, mutate={})
    fake.fail("token", 1, status=502)
    fake.control("options", access_token_lifetime_seconds=1)
    try:
        broker.connect("gateway")
    finally:
        fake.control("options", access_token_lifetime_seconds=LIFETIME)
    time.sleep(1.1)
    assert admin.get("/token/gateway").status_code == 200
    outcomes = [event["outcome"] for event in refresh_events(admin, "gateway")]
    assert outcomes == ["answer_lost", "renewed"]
