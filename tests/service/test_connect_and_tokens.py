"""The main job over real ports: connect, token, refresh, refusal, disconnect."""

from __future__ import annotations

import asyncio

import httpx
from tests.conftest import sha256


def test_a_connected_tenant_gets_a_token_that_works(broker, fake):
    page = broker.connect("acme")
    assert page.status_code == 200
    assert "acme is connected" in page.text
    with broker.client(broker.make_key("reader", ["token"], ["acme"])) as service:
        answer = service.get("/token/acme")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert set(body) == {
        "tenant",
        "access_token",
        "token_type",
        "expires_at",
        "expires_in",
        "scope",
    }
    assert 3500 < body["expires_in"] <= 3600
    me = httpx.get(f"{fake.url}/v1/me", headers={"Authorization": f"Bearer {body['access_token']}"})
    assert me.status_code == 200


def test_a_link_works_once_and_a_look_at_it_changes_nothing(broker):
    with broker.client() as admin:
        link = admin.post("/admin/tenants/once/connect-link").json()["url"]
    with httpx.Client() as browser:
        for _ in range(3):
            assert browser.get(link).status_code == 200
        assert browser.post(link).status_code == 303
        assert browser.get(link).status_code == 410
        assert browser.post(link).status_code == 410
        assert browser.get(link[:-4] + "AAAA").status_code == 404


async def test_200_callers_at_expiry_cause_one_refresh(broker, fake):
    broker.connect("stampede")
    key = broker.make_key("stampede", ["token"], ["stampede"])
    limits = httpx.Limits(max_connections=200)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(
        base_url=broker.url, headers=headers, limits=limits, timeout=30
    ) as service:
        rejected = (await service.get("/token/stampede")).json()["access_token"]
        before = fake.counters()["refreshes"]
        body = {"rejected_token_sha256": sha256(rejected)}
        answers = await asyncio.gather(
            *(service.post("/token/stampede/refresh", json=body) for _ in range(200))
        )
    assert {answer.status_code for answer in answers} == {200}
    tokens = {answer.json()["access_token"] for answer in answers}
    assert len(tokens) == 1
    assert rejected not in tokens
    assert fake.counters()["refreshes"] == before + 1


def test_a_longer_min_ttl_than_is_left_renews_and_an_unmeetable_one_does_not_loop(broker, fake):
    fake.control("options", access_token_lifetime_seconds=90)
    try:
        broker.connect("short")
        with broker.client() as admin:
            first = admin.get("/token/short?min_ttl=60").json()
            before = fake.counters()["refreshes"]
            again = admin.get("/token/short?min_ttl=3000").json()
    finally:
        fake.control("options", access_token_lifetime_seconds=3600)
    assert again["access_token"] == first["access_token"]
    assert fake.counters()["refreshes"] == before


def test_a_revoked_grant_is_reported_and_mended_by_connecting_again(broker, fake):
    broker.connect("revoked")
    fake.control("revoke")
    with broker.client() as admin:
        answer = admin.post("/token/revoked/refresh")
        assert answer.status_code == 409
        assert answer.json()["type"] == "urn:ignition-broker:reauthorization-required"
        assert admin.get("/token/revoked").status_code == 409
        shown = admin.get("/admin/tenants/revoked").json()
        assert shown["status"] == "reauthorization_required"
        assert shown["last_error"]
        assert newest_refresh(admin, "revoked")["outcome"] == "refused"
        broker.connect("revoked")
        assert admin.get("/token/revoked").status_code == 200


def test_a_disconnect_revokes_at_ignition_and_forgets(broker, fake):
    broker.connect("leaving")
    before = fake.counters()["revocations"]
    with broker.client() as admin:
        answer = admin.post("/admin/tenants/leaving/disconnect")
        assert answer.status_code == 200
        assert answer.json()["status"] == "disconnected"
        gone = admin.get("/token/leaving")
        assert gone.status_code == 409
        assert gone.json()["type"] == "urn:ignition-broker:not-connected"
    assert fake.counters()["revocations"] == before + 1


def test_a_provider_that_is_down_is_503_with_retry_after_then_recovers(broker, fake):
    broker.connect("downtime")
    with broker.client() as admin:
        rejected = sha256(admin.get("/token/downtime").json()["access_token"])
        fake.fail("token", 1, status=503)
        body = {"rejected_token_sha256": rejected}
        answer = admin.post("/token/downtime/refresh", json=body)
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:ignition-broker:provider-unavailable"
        assert int(answer.headers["retry-after"]) >= 1
        assert admin.post("/token/downtime/refresh").status_code == 200


def test_an_answer_that_is_no_token_is_provider_error_and_the_grant_lives(broker, fake):
    broker.connect("garbled")
    with broker.client() as admin:
        fake.fail("token", 1, status=200, body="<html>hello</html>", content_type="text/html")
        answer = admin.post("/token/garbled/refresh")
        assert answer.status_code == 502
        assert answer.json()["type"] == "urn:ignition-broker:provider-error"
        assert admin.get("/token/garbled").status_code == 200


def test_a_dropped_answer_keeps_the_live_token_and_is_audited(broker, fake):
    broker.connect("lost")
    with broker.client() as admin:
        first = admin.get("/token/lost").json()["access_token"]
        fake.fail("token", 1, drop="after")
        assert admin.post("/token/lost/refresh").status_code == 503
        assert admin.get("/token/lost").json()["access_token"] == first
        event = newest_refresh(admin, "lost")
    assert event["outcome"] == "answer_lost"
    assert event["detail"]["access_token_is_live"] is True
    assert fake.counters()["refresh_token_reuses"] == 0


def newest_refresh(admin, tenant: str) -> dict:
    """Tokens given out are written down a second later at most, so amid what is younger."""
    events = admin.get(f"/admin/audit?tenant={tenant}").json()["events"]
    return next(event for event in events if event["action"] == "refresh")
