"""Answers that come after the callers have gone, or while the process was stopped: each holds the
only good refresh token, and is stored."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import signal
import time
from urllib.parse import urlsplit

import httpx
import pytest
from tests.conftest import decide, free_port, sha256, wait_until

TIMEOUT = 1.0
PATIENCE = 5.0
LEASE = 6.0


@pytest.fixture(scope="module")
def more_settings():
    return {
        "BROKER_PROVIDER_TIMEOUT": str(TIMEOUT),
        "BROKER_PROVIDER_PATIENCE": str(PATIENCE),
    }


@pytest.fixture(scope="module")
def other(broker):
    """A second replica, with more patience."""
    port = free_port()
    settings = {**broker.settings, "BROKER_PORT": str(port), "BROKER_PROVIDER_PATIENCE": "30"}
    replica = dataclasses.replace(broker, port=port, settings=settings, logs=[]).start()
    yield replica
    if replica.process.poll() is None:
        replica.process.send_signal(signal.SIGCONT)
        replica.stop()


@pytest.fixture
def admin(broker):
    with broker.client() as client:
        yield client


def problem(answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].removeprefix("urn:ignition-broker:")


def refresh_outcomes(admin, tenant: str) -> list[str]:
    events = admin.get(f"/admin/audit?tenant={tenant}").json()["events"]
    return [event["outcome"] for event in reversed(events) if event["action"] == "refresh"]


def newest_grant(fake) -> dict:
    return fake.http.get("/control/ledger").json()["grants"][-1]


def reject(caller, tenant: str, token: str):
    """Asks as one whom the API has refused the token: to serve it on is no way out."""
    body = {"rejected_token_sha256": sha256(token)}
    return caller.post(f"/token/{tenant}/refresh", json=body)


def has_new_token(admin, tenant: str, old: str):
    return lambda: admin.get(f"/token/{tenant}").json().get("access_token", old) != old


@pytest.mark.parametrize(
    "fault",
    [
        {"delay_seconds": 2.5},
        {"drip_seconds": 0.008},
        {"delay_seconds": 1.5, "drip_seconds": 0.003},
    ],
    ids=["late", "dripping", "late and dripping"],
)
def test_an_answer_that_comes_after_its_callers_went_is_stored(broker, fake, admin, fault):
    tenant = f"late-{'-'.join(fault)}".replace("_", "-")
    broker.connect(tenant)
    token = admin.get(f"/token/{tenant}").json()["access_token"]
    fake.fail("token", 1, **fault)
    began = time.monotonic()
    answer = admin.post(f"/token/{tenant}/refresh")
    assert problem(answer) == (503, "provider-unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert TIMEOUT - 0.1 < time.monotonic() - began < TIMEOUT + 1
    served = admin.get(f"/token/{tenant}")
    assert served.json()["access_token"] == token, "the live token is served on"
    wait_until(has_new_token(admin, tenant, token), 5)
    assert refresh_outcomes(admin, tenant) == ["renewed"]
    grant = newest_grant(fake)
    assert grant["alive"]
    assert [t["times_presented"] for t in grant["refresh_tokens"]] == [1, 0]
    assert admin.post(f"/token/{tenant}/refresh").status_code == 200


def test_no_answer_within_the_patience_is_a_lost_answer(broker, fake, admin):
    broker.connect("never")
    fake.fail("token", 1, delay_seconds=PATIENCE + 1.5)
    assert problem(admin.post("/token/never/refresh")) == (503, "provider-unavailable")
    assert refresh_outcomes(admin, "never") == []
    wait_until(lambda: refresh_outcomes(admin, "never") == ["answer_lost"], PATIENCE + 1)
    assert f"within {PATIENCE:g} s" in admin.get("/admin/tenants/never").json()["last_error"]


@pytest.mark.parametrize("stopped", ["while Ignition works", "after it has answered"])
def test_an_answer_in_the_socket_of_a_stopped_process_is_taken(broker, fake, admin, stopped):
    """Stopped past every deadline; the timers fire first when it goes on."""
    tenant = f"stopped-{stopped[0]}"
    broker.connect(tenant)
    token = admin.get(f"/token/{tenant}").json()["access_token"]
    fake.fail("token", 1, delay_seconds=0.6)
    with concurrent.futures.ThreadPoolExecutor() as pool, broker.client() as caller:
        asking = pool.submit(caller.post, f"/token/{tenant}/refresh")
        time.sleep(0.3)
        broker.process.send_signal(signal.SIGSTOP)
        time.sleep(0.1 if stopped == "while Ignition works" else 0.6)
        time.sleep(PATIENCE + 2)
        broker.process.send_signal(signal.SIGCONT)
        answer = asking.result()
    assert answer.status_code == 200, answer.text
    assert answer.json()["access_token"] != token
    assert refresh_outcomes(admin, tenant) == ["renewed"]


def test_nobody_repeats_a_request_that_a_slow_ignition_still_works_on(broker, other, fake, admin):
    """Far longer than a lease lasts, with callers at both replicas. Those of each wait as long as
    the timeout, and no longer."""
    broker.connect("slow")
    token = admin.get("/token/slow").json()["access_token"]
    fake.fail("token", 1, delay_seconds=LEASE + 3)
    began = time.monotonic()
    with other.client() as first, broker.client() as second:
        while time.monotonic() - began < LEASE + 1.5:
            for caller in (first, second):
                asked = time.monotonic()
                assert problem(reject(caller, "slow", token)) == (503, "provider-unavailable")
                assert TIMEOUT - 0.1 < time.monotonic() - asked < TIMEOUT + 1
        wait_until(lambda: reject(second, "slow", token).status_code == 200, 5)
        assert reject(first, "slow", token).status_code == 200
    assert [t["times_presented"] for t in newest_grant(fake)["refresh_tokens"]] == [1, 0]
    assert refresh_outcomes(admin, "slow") == ["renewed"]


def test_a_killed_replicas_grant_is_free_again_in_seconds(broker, other, fake, admin):
    """However long it would have waited."""
    broker.connect("freed")
    token = admin.get("/token/freed").json()["access_token"]
    fake.fail("token", 1, delay_seconds=60, drop="before")
    with other.client() as caller:
        assert problem(reject(caller, "freed", token)) == (503, "provider-unavailable")
    time.sleep(2)
    other.process.kill()
    other.process.wait()
    began = time.monotonic()
    wait_until(lambda: reject(admin, "freed", token).status_code == 200, LEASE + 3)
    assert time.monotonic() - began < LEASE + 2
    other.start()


def test_a_shutdown_waits_for_a_late_answer_and_stores_it(other, fake, admin):
    with other.client() as caller:
        other.connect("leaving")
        token = caller.get("/token/leaving").json()["access_token"]
        fake.fail("token", 1, delay_seconds=3.5)
        assert problem(caller.post("/token/leaving/refresh")) == (503, "provider-unavailable")
    assert other.stop() == 0
    assert admin.get("/token/leaving").json()["access_token"] != token
    assert refresh_outcomes(admin, "leaving") == ["renewed"]
    other.start()


def test_the_command_line_waits_for_a_late_answer_that_it_asked_for(broker, fake, admin):
    broker.connect("by-hand")
    token = admin.get("/token/by-hand").json()["access_token"]
    fake.fail("token", 1, delay_seconds=2.5)
    ended = broker.command("tenants", "refresh", "by-hand")
    assert ended.returncode == 0, ended.stderr
    assert "Ignition has not answered for 1 s. Waiting on" in ended.stderr
    assert "by-hand: renewed" in ended.stdout
    wait_until(has_new_token(admin, "by-hand", token), 3)
    assert refresh_outcomes(admin, "by-hand") == ["renewed"]


@pytest.mark.parametrize("fault", [{"delay_seconds": 2.5}, {"drip_seconds": 0.008}])
def test_a_code_is_exchanged_though_the_page_waits_no_longer(broker, fake, admin, fault):
    tenant = f"dance-{'-'.join(fault)}".replace("_", "-")
    link = admin.post(f"/admin/tenants/{tenant}/connect-link").json()["url"]
    fake.fail("token", 1, **fault)
    with httpx.Client(timeout=30) as browser:
        callback = decide(browser, browser.post(link).headers["location"])
        began = time.monotonic()
        page = browser.get(callback)
        assert TIMEOUT - 0.1 < time.monotonic() - began < TIMEOUT + 1
        assert page.status_code == 202
        assert "may still succeed" in page.text
        wait_until(lambda: connected(admin, tenant), 5)
        assert browser.get(callback).status_code == 200
    assert admin.get(f"/token/{tenant}").status_code == 200
    assert admin.post(f"/token/{tenant}/refresh").status_code == 200
    events = admin.get(f"/admin/audit?tenant={tenant}").json()["events"]
    assert ("connect", "done") in [(event["action"], event["outcome"]) for event in events]


def test_a_code_that_ignition_refuses_late_connects_nothing_and_is_in_the_trail(
    broker, fake, admin
):
    body = '{"error": "invalid_grant"}'
    fake.fail("token", 1, status=400, body=body, delay_seconds=2)
    assert broker.connect("no-dance").status_code == 202

    def failed() -> bool:
        events = admin.get("/admin/audit?tenant=no-dance").json()["events"]
        return ("connect", "failed") in [(each["action"], each["outcome"]) for each in events]

    wait_until(failed, 4)
    assert not connected(admin, "no-dance")


def test_a_shutdown_waits_for_a_late_code_exchange_and_stores_it(other, fake, admin):
    link = admin.post("/admin/tenants/dancing/connect-link").json()["url"]
    fake.fail("token", 1, delay_seconds=3.5)
    with httpx.Client(timeout=30) as browser:
        callback = decide(browser, browser.post(link).headers["location"])
        at_other = callback.replace(f":{urlsplit(callback).port}/", f":{other.port}/")
        assert browser.get(at_other).status_code == 202
    assert other.stop() == 0
    assert connected(admin, "dancing")
    other.start()


def connected(admin, tenant: str) -> bool:
    return admin.get(f"/admin/tenants/{tenant}").json()["status"] == "connected"


def test_a_late_request_is_counted(broker, fake, admin):
    broker.connect("counted")
    fake.fail("token", 1, delay_seconds=2.5)
    admin.post("/token/counted/refresh")
    time.sleep(0.2)
    assert "broker_late_token_requests 1.0" in admin.get("/metrics").text
    wait_until(lambda: "broker_late_token_requests 0.0" in admin.get("/metrics").text, 4)
