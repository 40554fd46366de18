"""A failover to a standby that lost the last seconds, or a restored dump, under running replicas.

Ignition here revokes a grant whose spent refresh token comes again.
"""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest
from tests.conftest import free_port, wait_until
from tests.service.past import HANG_UP, Past, counted, renewed, renewed_soon, token, went_back


@pytest.fixture(scope="module")
def past(postgres, database_url):
    return Past(postgres, database_url)


@pytest.fixture(scope="module")
def other(broker):
    """A second replica."""
    port = free_port()
    replica = dataclasses.replace(
        broker, port=port, settings={**broker.settings, "BROKER_PORT": str(port)}, logs=[]
    ).start()
    yield replica
    replica.stop()


@pytest.fixture
def admin(broker):
    with broker.client() as client:
        yield client


@pytest.fixture
def second(other):
    with other.client() as client:
        yield client


def grants_lost(fake) -> list[str]:
    grants = fake.http.get("/control/ledger").json()["grants"]
    return [grant["revoked_reason"] for grant in grants if not grant["alive"]]


@pytest.mark.parametrize("hang_up", [True, False], ids=["failover", "restored dump"])
def test_no_grant_is_lost_whose_renewing_replica_lives(
    broker, other, admin, second, fake, past, hang_up
):
    names = [f"kept-{number}-{hang_up}".lower() for number in range(3)]
    for name in names:
        broker.connect(name)
        token(second, name)
    past.keep()
    fresh = {name: renewed(admin, name) for name in names}
    past.come_back(hang_up=hang_up)
    for name in names:
        # For a caller who had seen the row's token, the restored one is new.
        renewed_soon(second, name)
        assert renewed_soon(second, name) != fresh[name]
        assert [event["outcome"] for event in went_back(admin, name)][-1] == "restored"
    assert fake.counters()["refresh_token_reuses"] == 0
    assert grants_lost(fake) == []
    assert counted(admin, "restored") >= 3
    assert '"event": "database_went_back"' in broker.log_text()


def test_what_is_due_is_not_renewed_with_a_spent_token(broker, other, admin, fake, past):
    broker.connect("due")
    past.keep()
    for table in ("kept_grants", "grants"):
        past.sql(f"UPDATE {table} SET next_refresh_at = now() WHERE tenant_id = 'due'")
    wait_until(lambda: past.version("due") == 2, 10, "a renewal in the background")
    past.come_back()
    wait_until(lambda: past.version("due") == 2, 10, "what was lost, stored again")
    row = admin.get("/admin/tenants/due").json()
    assert row["status"] == "connected"
    assert row["last_error"] == "the database went back to version 1; version 2 was stored again"
    renewed_soon(admin, "due")
    assert admin.get("/admin/tenants/due").json()["last_error"] is None
    assert fake.counters()["refresh_token_reuses"] == 0


def test_an_answer_on_its_way_is_stored_over_a_row_that_went_back(
    broker, other, admin, second, fake, past
):
    broker.connect("on-its-way")
    past.keep()
    renewed(admin, "on-its-way")
    fake.fail("token", 1, delay_seconds=1.0)
    answers = []
    asking = threading.Thread(
        target=lambda: answers.append(admin.post("/token/on-its-way/refresh"))
    )
    asking.start()
    time.sleep(0.4)
    past.come_back()
    asking.join()
    wait_until(lambda: past.version("on-its-way") == 3, 5, "the answer's version")
    newest = answers[0].json()["access_token"]
    assert wait_until(lambda: token(second, "on-its-way") == newest, 5)
    renewed_soon(second, "on-its-way")
    assert fake.counters()["refresh_token_reuses"] == 0


def test_a_row_that_somebody_locks_holds_nobody_else_up(broker, other, admin, second, fake, past):
    for name in ("locked", "free"):
        broker.connect(name)
    past.keep()
    for name in ("locked", "free"):
        renewed(admin, name)
    past.come_back(hang_up=False)
    lock = threading.Thread(
        target=past.sql,
        args=(
            "BEGIN; SELECT FROM grants WHERE tenant_id = 'locked' FOR UPDATE; "
            "SELECT pg_sleep(3); COMMIT",
        ),
    )
    lock.start()
    time.sleep(0.2)
    past.sql(HANG_UP + " AND application_name LIKE 'ignition-broker%'")
    wait_until(lambda: past.version("free") == 2, 2, "the free row")
    assert past.version("locked") == 1
    lock.join()
    wait_until(lambda: past.version("locked") == 2, 12, "the row that was locked")
    assert fake.counters()["refresh_token_reuses"] == 0


def test_a_tenant_connected_in_the_lost_seconds_is_connected(broker, other, second, fake, past):
    with broker.client() as client:
        client.post("/admin/tenants/just-connected/connect-link")
    past.keep()
    broker.connect("just-connected")
    past.come_back()
    wait_until(lambda: second.get("/token/just-connected").status_code == 200, 10)
    renewed_soon(second, "just-connected")


def test_a_connection_that_was_replaced_is_not_brought_back(broker, admin, fake, past):
    """The older database's tenant is connected anew before anybody offers what was lost."""
    broker.connect("anew")
    past.keep()
    renewed(admin, "anew")
    renewed(admin, "anew")
    past.come_back()
    broker.connect("anew")
    newest = token(admin, "anew")
    time.sleep(2)
    assert token(admin, "anew") == newest
    renewed_soon(admin, "anew")


@pytest.mark.parametrize("hang_up", [True, False], ids=["failover", "restored dump"])
def test_a_forgotten_disconnect_is_carried_out_again(broker, other, admin, second, past, hang_up):
    name = f"gone-{hang_up}".lower()
    broker.connect(name)
    past.keep()
    assert broker.command("tenants", "disconnect", name).returncode == 0
    wait_until(lambda: second.get(f"/token/{name}").status_code == 409, 2)
    past.come_back(hang_up=hang_up)
    wait_until(lambda: admin.get(f"/token/{name}").status_code in (409, 503), 1)
    wait_until(lambda: admin.get(f"/token/{name}").status_code == 409, 3)
    wait_until(
        lambda: past.sql(f"SELECT status FROM grants WHERE tenant_id = '{name}'") == "disconnected",
        12,
    )
    outcomes = [event["outcome"] for event in went_back(admin, name)]
    assert outcomes == ["disconnected_again"]
    broker.connect(name)
    wait_until(lambda: second.get(f"/token/{name}").status_code == 200, 5)


def test_a_forgotten_revocation_of_a_key_is_carried_out_again(broker, other, admin, past):
    broker.connect("keyed")
    key = broker.make_key("forgotten", ["token"], ["*"])
    past.keep()
    assert broker.command("api-keys", "revoke", "forgotten").returncode == 0
    with other.client(key) as service:
        wait_until(lambda: service.get("/token/keyed").status_code == 401, 2)
        past.come_back()
        wait_until(
            lambda: past.sql("SELECT revoked_at FROM api_keys WHERE name = 'forgotten'") != "", 12
        )
        wait_until(lambda: service.get("/token/keyed").status_code == 401, 2)
    events = admin.get("/admin/audit").json()["events"]
    found = [event for event in events if event["action"] == "database_went_back"]
    assert (found[0]["outcome"], found[0]["detail"]) == ("key_revoked_again", {"key": "forgotten"})
    made_again = broker.make_key("forgotten", ["token"], ["*"])
    time.sleep(0.5)
    with broker.client(made_again) as service:
        assert service.get("/token/keyed").status_code == 200
