"""Every kind of answer of the token endpoint that the broker distinguishes, over a real socket."""

from __future__ import annotations

import concurrent.futures
import json
import time

import pytest
from tests.conftest import sha256, wait_until


@pytest.fixture(scope="module")
def more_settings():
    return {"BROKER_PROVIDER_TIMEOUT": "1.5"}


@pytest.fixture
def admin(broker):
    with broker.client() as client:
        yield client


def oauth_error(error: str, **more) -> dict:
    body = json.dumps({"error": error, "error_description": f"about {error}"})
    return {"status": 400, "body": body, "content_type": "application/json", **more}


def refresh_rejected(admin, tenant: str):
    token = admin.get(f"/token/{tenant}?min_ttl=0").json()["access_token"]
    return admin.post(f"/token/{tenant}/refresh", json={"rejected_token_sha256": sha256(token)})


def problem(answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].removeprefix("urn:ignition-broker:")


def newest_refresh_event(admin, tenant: str) -> dict:
    events = admin.get(f"/admin/audit?tenant={tenant}").json()["events"]
    return next(event for event in events if event["action"] == "refresh")


def test_a_refusal_that_another_grant_has_overtaken_changes_nothing(broker, fake, admin):
    """Connected anew while Ignition refused the old refresh token: the new grant stays."""
    broker.connect("overtaken")
    old = admin.get("/token/overtaken").json()["access_token"]
    fake.fail("token", 1, **oauth_error("invalid_grant", delay_seconds=1.0))
    with concurrent.futures.ThreadPoolExecutor() as pool, broker.client() as other:
        refreshed = pool.submit(other.post, "/token/overtaken/refresh")
        time.sleep(0.3)
        broker.connect("overtaken")
        answer = refreshed.result()
    assert answer.status_code == 200, answer.text
    assert answer.json()["access_token"] != old
    assert admin.get("/admin/tenants/overtaken").json()["status"] == "connected"


def test_a_new_token_that_a_disconnect_has_overtaken_is_revoked_at_ignition(broker, fake, admin):
    broker.connect("left")
    fake.fail("token", 1, delay_seconds=1.0)
    before = fake.counters()
    with concurrent.futures.ThreadPoolExecutor() as pool, broker.client() as other:
        refreshed = pool.submit(other.post, "/token/left/refresh")
        time.sleep(0.3)
        assert admin.post("/admin/tenants/left/disconnect").status_code == 200
        answer = refreshed.result()
    assert problem(answer) == (409, "not-connected")
    assert fake.counters()["revoke_requests"] == before["revoke_requests"] + 2
    assert admin.get("/admin/tenants/left").json()["status"] == "disconnected"


@pytest.mark.parametrize(
    ("tenant", "fault", "told", "outcome"),
    [
        ("client", oauth_error("invalid_client"), "invalid_client", "misconfigured"),
        ("scope", oauth_error("invalid_scope"), "invalid_scope", "rejected"),
        (
            "wall",
            {"status": 403, "body": "<html>no</html>", "content_type": "text/html"},
            "403",
            "rejected",
        ),
    ],
)
def test_a_4xx_that_is_no_refusal_of_the_grant_is_the_operators_to_mend(
    broker, fake, admin, tenant, fault, told, outcome
):
    broker.connect(tenant)
    fake.fail("token", 1, **fault)
    answer = refresh_rejected(admin, tenant)
    assert problem(answer) == (502, "provider-error")
    assert told in answer.json()["detail"]
    asked = fake.counters()["token_requests"]
    again = refresh_rejected(admin, tenant)
    assert problem(again) == (503, "provider-unavailable")
    assert 1 <= int(again.headers["retry-after"]) <= 31
    assert fake.counters()["token_requests"] == asked, "it is not asked again at once"
    assert admin.get(f"/token/{tenant}").status_code == 200, "the live token is served"
    assert newest_refresh_event(admin, tenant)["outcome"] == outcome
    assert '"level": "error"' in broker.log_text()
    assert admin.post(f"/token/{tenant}/refresh").status_code == 200, "the grant was kept"


def test_retry_after_is_honoured(broker, fake, admin):
    broker.connect("throttled")
    fake.fail("token", 1, status=429, headers={"Retry-After": "7"})
    answer = refresh_rejected(admin, "throttled")
    assert problem(answer) == (503, "provider-unavailable")
    assert int(answer.headers["retry-after"]) == 7
    asked = fake.counters()["token_requests"]
    again = refresh_rejected(admin, "throttled")
    assert 5 <= int(again.headers["retry-after"]) <= 7
    assert fake.counters()["token_requests"] == asked


def test_a_rate_limit_without_retry_after_is_honoured(broker, fake, admin):
    broker.connect("limited")
    fake.fail("token", 1, status=429, headers={"X-RateLimit-Reset": str(int(time.time()) + 8)})
    answer = refresh_rejected(admin, "limited")
    assert problem(answer) == (503, "provider-unavailable")
    assert 6 <= int(answer.headers["retry-after"]) <= 8


def test_a_503_was_not_carried_out_and_is_tried_again_after_a_back_off(broker, fake, admin):
    broker.connect("away")
    fake.fail("token", 1, status=503)
    assert problem(refresh_rejected(admin, "away")) == (503, "provider-unavailable")
    event = newest_refresh_event(admin, "away")
    assert (event["outcome"], event["detail"]["after_lost_answer"]) == ("throttled", False)
    wait_until(lambda: refresh_rejected(admin, "away").status_code == 200, 5)
    assert newest_refresh_event(admin, "away")["detail"]["after_lost_answer"] is False


@pytest.mark.parametrize("status", [500, 502, 504, 520])
def test_behind_another_5xx_ignition_may_have_rotated_and_the_live_token_is_spared(
    broker, fake, admin, status
):
    """What a gateway does that passes a refresh on and loses its answer."""
    tenant = f"status-{status}"
    broker.connect(tenant)
    token = admin.get(f"/token/{tenant}").json()["access_token"]
    fake.fail("token", 1, status=status, carry_out=True)
    refused = admin.post(f"/token/{tenant}/refresh")
    assert problem(refused) == (503, "provider-unavailable")
    assert f"status {status}" in refused.json()["detail"]
    event = newest_refresh_event(admin, tenant)
    assert (event["outcome"], event["detail"]["access_token_is_live"]) == ("answer_lost", True)
    time.sleep(1.1)
    assert problem(admin.get(f"/token/{tenant}?min_ttl=3599")) == (503, "provider-unavailable")
    grant = fake.http.get("/control/ledger").json()["grants"][-1]
    assert [shown["times_presented"] for shown in grant["refresh_tokens"]] == [1, 0]
    assert admin.get(f"/token/{tenant}").json()["access_token"] == token


@pytest.mark.parametrize("status", [500, 503])
def test_a_token_that_came_with_a_5xx_is_stored(broker, fake, admin, status):
    """A gateway changed the status, and the body holds the only good refresh token."""
    tenant = f"token-{status}"
    broker.connect(tenant)
    body = json.dumps({"access_token": "new", "refresh_token": "r2", "token_type": "Bearer"})
    fake.fail("token", 1, status=status, body=body, content_type="application/json")
    renewed = admin.post(f"/token/{tenant}/refresh")
    assert (renewed.status_code, renewed.json()["access_token"]) == (200, "new")


def test_a_connection_that_breaks_after_the_request_went_out_is_a_lost_answer(broker, fake, admin):
    broker.connect("silent")
    token = admin.get("/token/silent").json()["access_token"]
    fake.fail("token", 1, delay_seconds=1.1, drop="after")
    assert problem(admin.post("/token/silent/refresh")) == (503, "provider-unavailable")
    event = newest_refresh_event(admin, "silent")
    assert event["outcome"] == "answer_lost"
    assert event["detail"]["access_token_is_live"] is True
    assert admin.get("/token/silent").json()["access_token"] == token
    asked = fake.counters()["token_requests"]
    long = admin.get("/token/silent?min_ttl=3599")
    assert problem(long) == (503, "provider-unavailable"), "the refresh token is spared"
    assert int(long.headers["retry-after"]) > 3000
    assert fake.counters()["token_requests"] == asked


def test_no_new_refresh_token_in_the_answer_keeps_the_old_one(broker, fake, admin):
    fake.control("options", rotate_refresh_tokens=False)
    try:
        broker.connect("unrotated")
        first = admin.post("/token/unrotated/refresh").json()["access_token"]
        second = admin.post("/token/unrotated/refresh").json()["access_token"]
    finally:
        fake.control("options", rotate_refresh_tokens=True)
    assert first != second
    assert newest_refresh_event(admin, "unrotated")["detail"]["rotated"] is False


def test_a_dead_provider_is_asked_once_in_a_while_and_not_by_every_caller(broker, fake, admin):
    tenants = [f"dead-{number}" for number in range(8)]
    for tenant in tenants:
        broker.connect(tenant)
    fake.fail("token", 10_000, status=503)
    asked = fake.counters()["token_requests"]
    began = time.monotonic()
    calls = 0
    while time.monotonic() - began < 4:
        for tenant in tenants:
            assert problem(refresh_rejected(admin, tenant)) == (503, "provider-unavailable")
            calls += 1
    seen = fake.counters()["token_requests"] - asked
    assert calls > 50
    assert seen <= 5 + 4, f"{seen} requests for {calls} calls"
    fake.control("reset")
    wait_until(lambda: refresh_rejected(admin, tenants[0]).status_code == 200, 12)


def test_no_connection_is_not_sent_and_the_refresh_token_is_as_good_as_before(broker, fake, admin):
    broker.connect("unsent")
    token = admin.get("/token/unsent").json()["access_token"]
    fake.hang_up()
    answer = admin.post("/token/unsent/refresh")
    assert problem(answer) == (503, "provider-unavailable")
    event = newest_refresh_event(admin, "unsent")
    assert event["outcome"] == "not_sent"
    assert admin.get("/token/unsent").json()["access_token"] == token
    fake.listen()
    assert admin.post("/token/unsent/refresh").status_code == 200
    assert newest_refresh_event(admin, "unsent")["detail"]["after_lost_answer"] is False
