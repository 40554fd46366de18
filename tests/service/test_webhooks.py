"""Webhooks by the settings: what is sent of a grant's life, signed, and tried until it is taken."""

from __future__ import annotations

import json

import pytest
from standardwebhooks import Webhook
from tests.conftest import sql, wait_until
from tests.service.webhook_receiver import receiver as started_receiver

from ignition_broker.broker.notifications.signing import new_secret

SECRET = new_secret()
REPLACED = new_secret()


@pytest.fixture(scope="module")
def receiver(tmp_path_factory):
    yield from started_receiver(tmp_path_factory.mktemp("receiver"))


@pytest.fixture(scope="module")
def more_settings(receiver):
    return {
        "BROKER_WEBHOOK_URLS": receiver.url,
        "BROKER_WEBHOOK_SECRET": f"{SECRET},{REPLACED}",
        "BROKER_WEBHOOK_ALLOW": "127.0.0.0/8,::1",
    }


def of(receiver, tenant: str) -> list[dict]:
    """What was taken of the tenant, in the order in which it came."""
    return [each for each in receiver.taken() if each["data"]["tenant"] == tenant]


def refuse(fake, error: str) -> None:
    body = json.dumps({"error": error})
    fake.fail("token", 1, status=400, body=body, content_type="application/json")


def types_of(receiver, tenant: str) -> list[str]:
    return [each["type"] for each in of(receiver, tenant)]


def test_a_grants_life_is_told_in_order(broker, fake, receiver):
    broker.connect("acme")
    with broker.client() as admin:
        assert admin.post("/token/acme/refresh").status_code == 200
        refuse(fake, "invalid_grant")
        assert admin.post("/token/acme/refresh").status_code == 409
        broker.connect("acme")
        assert admin.post("/admin/tenants/acme/disconnect").status_code == 200
    wait_until(lambda: len(of(receiver, "acme")) == 4, what="four webhooks")
    assert types_of(receiver, "acme") == [
        "tenant.connected",
        "tenant.reauthorization_required",
        "tenant.connected",
        "tenant.disconnected",
    ]
    connected, ended, _again, disconnected = of(receiver, "acme")
    assert connected["data"] == {"tenant": "acme", "client": "default", "status": "connected"}
    assert connected["timestamp"].endswith("Z")
    assert ended["data"].pop("reason")
    assert ended["data"]["status"] == "reauthorization_required"
    assert disconnected["data"]["status"] == "disconnected"


def test_each_is_signed_with_both_secrets_of_a_rotation(broker, receiver):
    broker.connect("signed")
    wait_until(lambda: of(receiver, "signed"), what="a webhook")
    entry = next(each for each in receiver.received() if '"signed"' in each["body"])
    headers = entry["headers"]
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in (SECRET, REPLACED):
        assert Webhook(secret).verify(entry["body"], headers)["type"] == "tenant.connected"
    assert headers["content-type"] == "application/json"


def test_what_is_not_taken_is_sent_again_with_the_same_id_and_body(broker, receiver):
    receiver.set_mode("fail")
    broker.connect("again")
    tries = lambda: [each for each in receiver.received() if '"again"' in each["body"]]  # noqa: E731
    wait_until(lambda: len(tries()) == 2, what="a second try")
    receiver.set_mode("ok")
    wait_until(lambda: of(receiver, "again"), what="the webhook was taken")
    assert len({each["headers"]["webhook-id"] for each in tries()}) == 1
    assert len({each["body"] for each in tries()}) == 1
    assert [each["status"] for each in tries()][-1] == 204


def test_a_redirect_is_not_followed_and_counts_as_not_taken(broker, receiver):
    receiver.set_mode("redirect")
    broker.connect("moved")
    try:
        wait_until(lambda: any('"moved"' in each["body"] for each in receiver.received()))
    finally:
        receiver.set_mode("ok")
    wait_until(lambda: of(receiver, "moved"), what="the webhook was taken")
    assert {each["path"] for each in receiver.received()} == {"/hook"}
    assert "redirects are not followed" in broker.log_text()


def test_a_receiver_that_asks_for_time_gets_it(broker, receiver):
    receiver.set_mode("busy")
    broker.connect("busy")
    tries = lambda: [each for each in receiver.received() if '"busy"' in each["body"]]  # noqa: E731
    wait_until(tries, what="a first try")
    receiver.set_mode("ok")
    wait_until(lambda: of(receiver, "busy"), what="the webhook was taken")
    first, second = tries()
    assert second["at"] - first["at"] >= 3


def test_an_event_waits_for_the_earlier_one_of_its_tenant_and_for_no_other(broker, receiver):
    receiver.set_mode("fail")
    broker.connect("first")
    wait_until(lambda: any('"first"' in each["body"] for each in receiver.received()))
    with broker.client() as admin:
        assert admin.post("/admin/tenants/first/disconnect").status_code == 200
    receiver.set_mode("ok")
    broker.connect("other")
    wait_until(lambda: of(receiver, "other"), what="the other tenant's")
    wait_until(lambda: len(of(receiver, "first")) == 2, what="both of the first tenant's")
    assert types_of(receiver, "first") == ["tenant.connected", "tenant.disconnected"]


def test_an_ordinary_refresh_writes_no_event(broker, postgres, database_url):
    broker.connect("renewed")
    count = "SELECT count(*) FROM outbox_events WHERE tenant_id = 'renewed'"
    with broker.client() as admin:
        for _ in range(5):
            assert admin.post("/token/renewed/refresh").status_code == 200
    assert sql(postgres, database_url, count) == "1"


def test_ignition_away_and_back_is_told_once(broker, fake, receiver):
    tenants = [f"away{n}" for n in range(4)]
    for tenant in tenants:
        broker.connect(tenant)
    fake.fail("token", 30, status=500)
    with broker.client() as admin:
        for tenant in (*tenants, *tenants):
            admin.post(f"/token/{tenant}/refresh")
        wait_until(lambda: receiver.taken("provider.unavailable"), what="it was told")
        fake.control("reset")

        def is_back() -> bool:
            admin.post("/token/away0/refresh")
            return bool(receiver.taken("provider.recovered"))

        wait_until(is_back, 40, what="it was told again")
    [away] = receiver.taken("provider.unavailable")
    assert away["data"]["tenant"] is None
    assert away["data"]["client"] == "default"
    assert away["data"]["status"] == "unavailable"
    assert len(receiver.taken("provider.recovered")) == 1


def test_a_client_that_is_rejected_is_told_once_until_it_is_mended(
    broker, fake, receiver, postgres, database_url
):
    broker.connect("wrong")
    with broker.client() as admin:
        for _ in range(3):
            refuse(fake, "invalid_client")
            assert admin.post("/token/wrong/refresh").status_code == 502
            wait_until(lambda: receiver.taken("client.misconfigured"), what="it was told")
    [told] = receiver.taken("client.misconfigured")
    assert "invalid_client" in told["data"]["reason"]
    # No replica has seen it for more than a minute.
    sql(
        postgres,
        database_url,
        "UPDATE conditions SET seen_at = seen_at - interval '2 minutes' "
        "WHERE subject = 'client default'",
    )
    met = "SELECT is_met FROM conditions WHERE subject = 'client default'"
    with broker.client() as admin:
        assert admin.post("/token/wrong/refresh").status_code == 200
        wait_until(lambda: sql(postgres, database_url, met) == "f", what="it was mended")
        refuse(fake, "invalid_client")
        assert admin.post("/token/wrong/refresh").status_code == 502
    wait_until(lambda: len(receiver.taken("client.misconfigured")) == 2, what="told anew")


def test_a_refresh_token_whose_end_is_fixed_is_told_of_once(
    broker, receiver, postgres, database_url
):
    """And one whose end moves with each renewal is not."""
    for tenant in ("fixed", "moving"):
        broker.connect(tenant)
    ends = "connected_at + interval '30 days'"
    age = "UPDATE grants SET connected_at = now() - interval '25 days' WHERE tenant_id IN ({})"
    sql(postgres, database_url, age.format("'fixed', 'moving'"))
    first = f"UPDATE grants SET refresh_token_first_end = {ends}, "
    sql(
        postgres,
        database_url,
        f"{first} refresh_token_expires_at = {ends} WHERE tenant_id = 'fixed'",
    )
    sql(
        postgres,
        database_url,
        f"{first} refresh_token_expires_at = now() + interval '5 days' WHERE tenant_id = 'moving'",
    )
    sql(
        postgres,
        database_url,
        "UPDATE grants SET refresh_token_first_end = "
        "connected_at + interval '1 day' WHERE tenant_id = 'moving'",
    )
    ending = lambda: receiver.taken("tenant.ending_soon")  # noqa: E731
    wait_until(ending, 30, what="the end was told")
    [told] = ending()
    assert told["data"]["tenant"] == "fixed"
    assert told["data"]["status"] == "connected"
    assert told["data"]["ends_at"].endswith("Z")
    warned = "SELECT tenant_id FROM grants WHERE lapse_warned_for IS NOT NULL"
    assert sql(postgres, database_url, warned) == "fixed"


def test_the_log_and_the_database_hold_neither_secret_nor_url(
    broker, receiver, postgres, database_url
):
    for secret in (SECRET, REPLACED):
        assert secret not in broker.log_text()
    assert (
        json.loads(
            sql(
                postgres,
                database_url,
                "SELECT coalesce(json_agg(target), '[]') FROM webhooks WHERE target IS NOT NULL",
            )
        )
        == []
    )
    assert broker.tracebacks() == []
