"""Idle grants, and many that fall due at once."""

from __future__ import annotations

import dataclasses
import time

import pytest
from tests.conftest import free_port, sql, wait_until

RATE = 20
DUE = 60


@pytest.fixture(scope="module")
def fake_options():
    return {"access_token_lifetime_seconds": 1}


@pytest.fixture(scope="module")
def more_settings():
    return {"BROKER_KEEPALIVE": "6", "BROKER_REFRESH_RATE": str(RATE)}


def refresh_tokens(fake) -> list[dict]:
    grants = fake.http.get("/control/ledger").json()["grants"]
    return [token for grant in grants for token in grant["refresh_tokens"]]


def test_an_idle_grant_is_renewed_at_each_keep_alive_and_works_at_its_next_call(broker, fake):
    broker.connect("idle")
    time.sleep(5)  # past the few lifetimes for which it counts as in use
    before = fake.counters()["refreshes"]
    time.sleep(14)
    renewed = fake.counters()["refreshes"] - before
    assert 2 <= renewed <= 3, "every 5.4 to 6 s, where one in use is renewed twice a second"
    with broker.client() as admin:
        assert admin.get("/token/idle").status_code == 200


def test_grants_due_at_once_are_spread_over_the_replicas_at_their_common_rate(
    broker, fake, postgres, database_url
):
    port = free_port()
    other = dataclasses.replace(
        broker, port=port, settings={**broker.settings, "BROKER_PORT": str(port)}, logs=[]
    ).start()
    try:
        fake.control("options", access_token_lifetime_seconds=3600)
        for number in range(DUE):
            broker.connect(f"due-{number}")
        time.sleep(11)  # each counts the replicas every ten seconds
        statement = "UPDATE grants SET next_refresh_at = now() WHERE tenant_id LIKE 'due-%'"
        sql(postgres, database_url, statement)

        def spent() -> list[float]:
            tokens = [token for token in refresh_tokens(fake) if token["spent_at"] is not None]
            assert all(token["times_presented"] == 1 for token in tokens)
            return sorted(token["spent_at"] for token in tokens)

        known = len(spent())
        wait_until(lambda: len(spent()) >= known + DUE, 15, "all renewed")
        moments = spent()[-DUE:]
    finally:
        other.stop()
    seconds = moments[-1] - moments[0]
    assert DUE / RATE * 0.6 < seconds < DUE / RATE * 2.5
    busiest = max(sum(at <= other < at + 1 for other in moments) for at in moments)
    assert busiest <= RATE * 1.5
