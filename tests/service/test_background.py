"""The background refresher with tokens that live for seconds."""

from __future__ import annotations

import time

import pytest


@pytest.fixture(scope="module")
def fake_options():
    return {"access_token_lifetime_seconds": 4}


def test_a_grant_in_use_is_renewed_ahead_and_no_caller_waits(broker, fake):
    broker.connect("busy")
    fake.fail("token", 100, delay_seconds=0.8)
    waits = []
    with broker.client() as admin:
        seen = set()
        until = time.monotonic() + 10
        while time.monotonic() < until:
            began = time.monotonic()
            answer = admin.get("/token/busy?min_ttl=0")
            waits.append(time.monotonic() - began)
            assert answer.status_code == 200
            assert answer.json()["expires_in"] >= 0
            seen.add(answer.json()["access_token"])
            time.sleep(0.1)
    assert len(seen) >= 3
    assert max(waits) < 0.7, "nobody waited for Ignition"
    counters = fake.counters()
    assert counters["refresh_token_reuses"] == 0
    assert counters["refreshes"] >= len(seen) - 1


def test_an_idle_grant_is_left_alone(broker, fake):
    broker.connect("idle")
    time.sleep(18)
    before = fake.counters()["refreshes"]
    time.sleep(5)
    assert fake.counters()["refreshes"] == before


def test_a_lifetime_counts_from_when_the_request_was_sent(broker, fake):
    broker.connect("slow")
    fake.fail("token", 1, delay_seconds=1.5)
    with broker.client() as admin:
        answer = admin.post("/token/slow/refresh")
    assert answer.status_code == 200
    assert answer.json()["expires_in"] <= 2, "4 s less the 1.5 s that the answer took"


@pytest.mark.parametrize("expires_in", [0, -5, None, "soon", "7200", 10**30, 1.5, True, [1]])
def test_an_odd_expires_in_loses_nothing(broker, fake, expires_in):
    tenant = f"odd-{abs(hash(str(expires_in)))}"
    broker.connect(tenant)
    with broker.client() as admin:
        fake.fail("token", 1, mutate={"expires_in": expires_in})
        answer = admin.post(f"/token/{tenant}/refresh")
        if expires_in in (0, -5) and expires_in is not True:
            assert answer.status_code == 502
        else:
            assert answer.status_code == 200, answer.text
            assert answer.json()["expires_in"] >= 0
        again = admin.post(f"/token/{tenant}/refresh")
        assert again.status_code == 200, again.text
    assert fake.counters()["refresh_token_reuses"] == 0
