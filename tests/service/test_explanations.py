"""Twelve causes and more, planted by the fake's faults and in the row: each is named first, and
nothing wrong is said with confidence."""

from __future__ import annotations

import json
import time

import httpx
import pytest
from cryptography.fernet import Fernet
from tests.conftest import sql

from ignition_broker.cipher import Cipher

LIFETIME = 3600
PLANTED: dict[str, str] = {}
"""By tenant: what was done to it."""


@pytest.fixture(scope="module")
def fake_options():
    return {"access_token_lifetime_seconds": LIFETIME}


@pytest.fixture(scope="module")
def stored(broker, postgres, database_url):
    """The refresh token of a tenant in clear."""

    def read(tenant: str) -> str:
        statement = f"SELECT encode(refresh_token, 'hex') FROM grants WHERE tenant_id = '{tenant}'"
        sealed = bytes.fromhex(sql(postgres, database_url, statement))
        cipher = Cipher([broker.settings["BROKER_ENCRYPTION_KEYS"]])
        return cipher.decrypt(tenant, "refresh_token", sealed)

    return read


@pytest.fixture(scope="module")
def explained(broker, fake, postgres, database_url, stored):
    """Plants all, then explains all."""
    with broker.client() as admin:
        _plant(broker, fake, admin, postgres, database_url, stored)
        found = {}
        for tenant in PLANTED:
            answer = admin.get(f"/admin/tenants/{tenant}/explain")
            assert answer.status_code == 200, answer.text
            found[tenant] = answer.json()
    for tenant, cause in PLANTED.items():
        first = found[tenant]["causes"][0]
        print(f"{cause:24} {first['code']:24} {first['confidence']}")
    return found


def _plant(broker, fake, admin, postgres, database_url, stored) -> None:
    def planted(cause: str) -> str:
        tenant = cause.replace("_", "-")
        PLANTED[tenant] = cause
        return tenant

    def renew(tenant: str, *statuses: int) -> None:
        assert admin.post(f"/token/{tenant}/refresh").status_code in statuses

    def connect_for(tenant: str, **options: int) -> None:
        before = {
            "access_token_lifetime_seconds": LIFETIME,
            "refresh_token_lifetime_seconds": 90 * 86_400,
        }
        fake.control("options", **options)
        try:
            broker.connect(tenant)
        finally:
            fake.control("options", **{name: before[name] for name in options})

    admin.post(f"/admin/tenants/{planted('never_connected')}/connect-link")
    broker.connect(planted("connected"))
    broker.connect(tenant := planted("disconnected"))
    admin.post(f"/admin/tenants/{tenant}/disconnect")

    # Ignition carries the refresh out, and its answer never comes.
    fake.fail("token", 1, mutate={})
    fake.fail("token", 1, drop="after")
    connect_for(tenant := planted("lost_answer"), access_token_lifetime_seconds=1)
    time.sleep(1.1)
    assert admin.get(f"/token/{tenant}").status_code == 409

    broker.connect(tenant := planted("answer_outstanding"))
    fake.fail("token", 1, drop="before")
    renew(tenant, 503)

    connect_for(tenant := planted("refresh_token_lapsed"), refresh_token_lifetime_seconds=1)
    time.sleep(1.1)
    renew(tenant, 409)

    broker.connect(tenant := planted("used_by_another_party"))
    thief = httpx.post(
        f"{fake.url}/oauth/token",
        data={
            "grant_type": "refresh_token",
            "refresh_token": stored(tenant),
            "client_id": broker.settings["IGNITION_CLIENT_ID"],
            "client_secret": broker.settings["IGNITION_CLIENT_SECRET"],
        },
    )
    assert thief.status_code == 200, thief.text
    renew(tenant, 409)

    broker.connect(tenant := planted("withdrawn"))
    newest = fake.http.get("/control/ledger").json()["grants"][-1]
    fake.control("revoke", grant=newest["id"])
    assert admin.get(f"/proxy/{tenant}/v1/me").status_code == 409

    broker.connect(tenant := planted("client_rejected"))
    fake.control("client", client_secrets=["of-somebody-else"])
    try:
        renew(tenant, 502)
    finally:
        fake.control("client", client_secrets=[broker.settings["IGNITION_CLIENT_SECRET"]])

    broker.connect(tenant := planted("request_rejected"))
    fake.fail("token", 1, status=400, body=json.dumps({"error": "invalid_scope"}))
    renew(tenant, 502)

    broker.connect(tenant := planted("provider_busy"))
    fake.fail("token", 1, status=503, headers={"Retry-After": "600"})
    renew(tenant, 503)

    broker.connect(tenant := planted("key_missing"))
    lost = Cipher([Fernet.generate_key().decode()]).encrypt(tenant, "refresh_token", "x")
    sql(
        postgres,
        database_url,
        f"UPDATE grants SET refresh_token = '\\x{lost.hex()}' WHERE tenant_id = '{tenant}'",
    )

    fake.fail("token", 1, mutate={"refresh_token": None})
    broker.connect(planted("not_renewable"))


def test_each_planted_cause_is_named_first(explained):
    named = {PLANTED[tenant]: each["causes"][0]["code"] for tenant, each in explained.items()}
    assert len(named) >= 12
    assert {cause: code for cause, code in named.items() if cause != code} == {}


def test_nothing_wrong_is_said_with_confidence(explained):
    for tenant, each in explained.items():
        for cause in each["causes"]:
            if cause["code"] != PLANTED[tenant]:
                assert cause["confidence"] == "possible", (tenant, cause)


def test_each_cause_has_its_evidence_and_a_next_step(explained):
    with_events = {"disconnected", "lost_answer", "withdrawn", "client_rejected"}
    for tenant, each in explained.items():
        first = each["causes"][0]
        assert first["next_step"].endswith("."), first
        if PLANTED[tenant] in with_events:
            assert any(found["event_id"] for found in first["evidence"]), first
        assert all(found["at"] or found["what"] for found in first["evidence"])


def test_where_several_fit_it_says_what_would_tell_them_apart(explained):
    codes = [cause["code"] for cause in explained["withdrawn"]["causes"]]
    assert codes[:2] == ["withdrawn", "used_by_another_party"]
    assert explained["withdrawn"]["tells_apart"]
    assert explained["lost-answer"]["tells_apart"] is None


def test_the_command_line_says_the_same(broker, explained):
    for tenant in ("lost-answer", "key-missing"):
        shown = broker.command("tenants", "explain", tenant)
        assert shown.returncode == 0, shown.stderr
        first = explained[tenant]["causes"][0]
        assert first["text"] in shown.stdout
        assert f"({first['confidence']}; {first['code']})" in shown.stdout
    as_json = json.loads(broker.command("tenants", "explain", "lost-answer", "--json").stdout)
    assert as_json["causes"][0]["code"] == "lost_answer"
    assert broker.command("tenants", "explain", "nobody").returncode == 1


def test_no_token_is_shown(broker, explained, stored):
    told = json.dumps(explained)
    assert stored("connected") not in told
    assert not broker.tracebacks()
