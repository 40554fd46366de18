"""Callers who force renewals one behind the other, on two replicas: the provider's quota is shared
by all tenants, so that each tenant's callers are paced, by the row."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.conftest import free_port, sha256, sql, wait_until

from ignition_broker.broker.grants.token_requirements import EARLY_RENEWALS_AT_ONCE

ATTACK_SECONDS = 2.5


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


def by_refresh_route(client, tenant, token):
    body = {"rejected_token_sha256": sha256(token)}
    return client.post(f"/token/{tenant}/refresh", json=body)


def by_forward_auth(client, tenant, token):
    query = {"rejected_token_sha256": sha256(token)}
    return client.get(f"/forward-auth/{tenant}", params=query)


@pytest.mark.parametrize("force", [by_refresh_route, by_forward_auth])
def test_renewals_forced_by_callers_are_paced_on_all_replicas_together(broker, other, fake, force):
    tenant = f"paced-{force.__name__.replace('_', '-')}"
    broker.connect(tenant)
    key = broker.make_key(tenant, ["token", "proxy"], [tenant])
    before = fake.counters()["refreshes"]
    began_at, refused = time.monotonic(), []
    with broker.client(key) as here, other.client(key) as there:
        for client in itertools.cycle((here, there)):
            if time.monotonic() - began_at > ATTACK_SECONDS:
                break
            token = client.get(f"/token/{tenant}?min_ttl=1").json()["access_token"]
            answer = force(client, tenant, token)
            if answer.status_code != 200:
                refused.append(answer)
    seconds = time.monotonic() - began_at
    renewals = fake.counters()["refreshes"] - before
    assert renewals <= EARLY_RENEWALS_AT_ONCE + 1 + math.log2(1 + seconds)
    assert refused, "nobody was held up"
    assert {answer.status_code for answer in refused} == {429}
    assert refused[0].json()["type"] == "urn:ignition-broker:renewed-too-often"
    assert refused[0].json()["tenant"] == tenant
    assert int(refused[0].headers["retry-after"]) >= 1


def test_a_min_ttl_close_to_the_lifetime_is_paced_too(broker, fake, postgres, database_url):
    broker.connect("greedy")
    # As after many of them; whole seconds allow one per second.
    paced = "UPDATE grants SET early_renewals = 20, refreshed_at = now() WHERE tenant_id = 'greedy'"
    sql(postgres, database_url, paced)
    before = fake.counters()["refreshes"]
    with broker.client() as admin:
        answer = wait_until(lambda: refused_for(admin, "/token/greedy?min_ttl=3599"), 3)
        assert answer.json()["type"] == "urn:ignition-broker:renewed-too-often"
        assert admin.get("/token/greedy?min_ttl=3000").status_code == 200
    assert fake.counters()["refreshes"] == before


def refused_for(client, url):
    answer = client.get(url)
    return answer if answer.status_code != 200 else None


def test_a_paced_tenants_token_is_served_on_and_an_admin_may_still_renew_it(broker, fake):
    broker.connect("served-on")
    with broker.client() as admin:
        for _ in range(EARLY_RENEWALS_AT_ONCE + 2):
            token = admin.get("/token/served-on").json()["access_token"]
            answer = by_refresh_route(admin, "served-on", token)
        assert answer.status_code == 429
        assert admin.get("/token/served-on").json()["access_token"] == token
        by_hand = admin.post("/token/served-on/refresh")
        assert by_hand.status_code == 200
        assert by_hand.json()["access_token"] != token


def test_what_the_proxy_sees_refused_is_renewed_however_often_callers_forced_it(broker, fake):
    broker.connect("proxied")
    with broker.client() as admin:
        for _ in range(EARLY_RENEWALS_AT_ONCE + 2):
            fake.control("expire")
            assert admin.get("/proxy/proxied/v1/me").status_code == 200
        for _ in range(EARLY_RENEWALS_AT_ONCE + 2):
            token = admin.get("/token/proxied").json()["access_token"]
            answer = by_refresh_route(admin, "proxied", token)
        assert answer.status_code == 429
        fake.control("expire")
        assert admin.get("/proxy/proxied/v1/me").status_code == 200


def test_connecting_again_begins_the_count_anew(broker):
    broker.connect("anew")
    with broker.client() as admin:
        for _ in range(EARLY_RENEWALS_AT_ONCE + 2):
            token = admin.get("/token/anew").json()["access_token"]
            answer = by_refresh_route(admin, "anew", token)
        assert answer.status_code == 429
        broker.connect("anew")
        token = admin.get("/token/anew").json()["access_token"]
        assert by_refresh_route(admin, "anew", token).status_code == 200


def test_one_tenant_that_is_throttled_does_not_close_the_door_for_others(broker, fake):
    broker.connect("throttled")
    broker.connect("bystander")
    with broker.client() as admin:
        rejected = admin.get("/token/bystander").json()["access_token"]
        fake.fail("token", 12, status=429, headers={"Retry-After": "3600"})
        for _ in range(12):
            assert admin.post("/token/throttled/refresh").status_code == 503
        renewed = by_refresh_route(admin, "bystander", rejected)
        assert renewed.status_code == 200, renewed.text
        assert renewed.json()["access_token"] != rejected


def test_the_proxy_is_not_bound_by_a_refusal_to_callers_whom_it_joined(broker, fake):
    broker.connect("joined")
    with broker.client() as admin:
        for _ in range(EARLY_RENEWALS_AT_ONCE + 2):
            token = admin.get("/token/joined").json()["access_token"]
            answer = by_refresh_route(admin, "joined", token)
        assert answer.status_code == 429
        for _ in range(3):
            fake.control("expire")
            current = admin.get("/token/joined").json()["access_token"]
            with ThreadPoolExecutor(8) as callers:
                pressing = [
                    callers.submit(by_refresh_route, admin, "joined", current) for _ in range(30)
                ]
                proxied = [callers.submit(admin.get, "/proxy/joined/v1/me") for _ in range(30)]
            assert {each.result().status_code for each in proxied} == {200}
            assert {each.result().status_code for each in pressing} <= {200, 429}
