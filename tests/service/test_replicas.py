"""Several processes on one Postgres: one refresh, changes reach all, faults are survived."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import time

import httpx
import pytest
from tests.conftest import free_port, sha256, sql, wait_until


@pytest.fixture(scope="module")
def other(broker):
    """A second replica."""
    port = free_port()
    replica = dataclasses.replace(
        broker, port=port, settings={**broker.settings, "BROKER_PORT": str(port)}, logs=[]
    ).start()
    yield replica
    if replica.process.poll() is None:
        replica.stop()


async def test_two_replicas_refresh_a_rejected_token_once(broker, other, fake):
    broker.connect("shared")
    with broker.client() as admin:
        rejected = sha256(admin.get("/token/shared").json()["access_token"])
    before = fake.counters()["refreshes"]
    headers = {"Authorization": f"Bearer {broker.admin_key}"}
    async with httpx.AsyncClient(headers=headers, timeout=30) as client:
        answers = await asyncio.gather(
            *(
                client.post(
                    f"{replica.url}/token/shared/refresh",
                    json={"rejected_token_sha256": rejected},
                )
                for replica in (broker, other)
                for _ in range(40)
            )
        )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["access_token"] for answer in answers}) == 1
    assert fake.counters()["refreshes"] == before + 1


def test_a_disconnect_and_a_revoked_key_are_heard_of_within_a_second(broker, other):
    broker.connect("heard")
    key = broker.make_key("heard", ["token"], ["*"])
    with other.client(key) as service, broker.client() as admin:
        assert service.get("/token/heard").status_code == 200
        admin.post("/admin/tenants/heard/disconnect")
        wait_until(lambda: service.get("/token/heard").status_code == 409, 1)
        admin.delete("/admin/api-keys/heard")
        wait_until(lambda: service.get("/token/heard").status_code == 401, 1)


def test_a_killed_replicas_lease_runs_out_and_another_renews(broker, other, fake):
    """Killed while Ignition's answer is on its way: the refresh token may be spent."""
    broker.connect("killed")
    with broker.client() as admin, other.client() as second:
        token = admin.get("/token/killed").json()["access_token"]
        fake.fail("token", 1, delay_seconds=1.5, drop="before")
        with pytest.raises(httpx.ReadTimeout):
            second.post("/token/killed/refresh", timeout=0.4)
        other.process.send_signal(signal.SIGKILL)
        other.process.wait(5)
        assert admin.get("/token/killed").json()["access_token"] == token
        body = {"rejected_token_sha256": sha256(token)}

        def renewed():
            answer = admin.post("/token/killed/refresh", json=body)
            return answer.status_code == 200 and answer.json()["access_token"] != token

        wait_until(renewed, 20, "a renewal by the surviving replica")
    other.start()


def test_a_broken_listen_connection_is_reopened_and_changes_are_not_missed(
    broker, postgres, database_url
):
    broker.connect("deaf")
    with broker.client() as admin:
        assert admin.get("/token/deaf").status_code == 200
        sql(
            postgres,
            database_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'ignition-broker listen' AND datname = current_database()",
        )
        assert admin.get("/token/deaf").status_code == 200
        wait_until(lambda: "broker_listening 1.0" in admin.get("/metrics").text, 5)


def test_postgres_away_serves_what_is_held_and_503_for_the_rest_then_recovers(
    broker, postgres, database_url
):
    broker.connect("held")
    broker.connect("unheld")
    key = broker.make_key("through", ["token"], ["*"])
    with broker.client(key) as service, broker.client() as admin:
        wait_until(lambda: "broker_listening 1.0" in admin.get("/metrics").text, 5)
        held = service.get("/token/held").json()["access_token"]
        postgres.stop("immediate")
        try:
            assert service.get("/token/held").json()["access_token"] == held
            answer = service.get("/token/unheld")
            assert answer.status_code == 503
            assert answer.json()["type"] == "urn:ignition-broker:unavailable"
            assert int(answer.headers["retry-after"]) >= 1
            assert service.get("/healthz").status_code == 200
            assert service.get("/readyz").status_code == 503
        finally:
            postgres.start()
        wait_until(lambda: service.get("/token/unheld").status_code == 200, 10)


def test_a_renewal_that_finds_postgres_away_is_stored_when_it_is_back(broker, postgres, fake):
    """Ignition has answered and the refresh token is rotated: the answer must not be lost."""
    broker.connect("stored")
    with broker.client() as admin:
        first = admin.get("/token/stored").json()["access_token"]
        before = fake.counters()
        fake.fail("token", 1, delay_seconds=1.0)
        with pytest.raises(httpx.ReadTimeout):
            admin.post("/token/stored/refresh", timeout=0.3)
        postgres.stop("immediate")
        try:
            wait_until(lambda: fake.counters()["refreshes"] == before["refreshes"] + 1, 5)
            time.sleep(0.5)
        finally:
            postgres.start()

        def renewed():
            answer = admin.get("/token/stored")
            return answer.status_code == 200 and answer.json()["access_token"] != first

        wait_until(renewed, 15, "the stored renewal")
        assert admin.post("/token/stored/refresh").status_code == 200
    assert fake.counters()["refresh_token_reuses"] == before["refresh_token_reuses"]


def test_sigterm_finishes_and_stores_a_refresh_in_flight(broker, fake):
    broker.connect("closing")
    with broker.client() as admin:
        first = admin.get("/token/closing").json()["access_token"]
        fake.fail("token", 1, delay_seconds=1.0)
        with pytest.raises(httpx.ReadTimeout):
            admin.post("/token/closing/refresh", timeout=0.3)
    assert broker.stop() == 0
    broker.start()
    with broker.client() as admin:
        assert admin.get("/token/closing").json()["access_token"] != first
        assert admin.post("/token/closing/refresh").status_code == 200
