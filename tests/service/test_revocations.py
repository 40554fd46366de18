"""Revocations that Ignition did not answer: tried again for a day, by any replica."""

from __future__ import annotations

import pytest
from tests.conftest import sql, wait_until
from tests.service.odd_provider import OddProvider, Reply


@pytest.fixture(scope="module")
def provider():
    server = OddProvider()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def more_settings(provider):
    return {
        "IGNITION_TOKEN_URL": f"{provider.url}/token",
        "IGNITION_REVOKE_URL": f"{provider.url}/revoke",
    }


@pytest.fixture
def admin(broker):
    with broker.client() as client:
        yield client


@pytest.fixture
def pending(postgres, database_url):
    """An expression over the rows of a tenant's revocations, as psql prints it."""
    return lambda tenant, columns: sql(
        postgres,
        database_url,
        f"SELECT {columns} FROM pending_revocations WHERE tenant_id = '{tenant}'",
    )


def outcomes(admin, tenant: str) -> list[str]:
    events = admin.get(f"/admin/audit?tenant={tenant}").json()["events"]
    return [event["outcome"] for event in events if event["action"] == "revoke"]


def disconnect(broker, provider, admin, tenant: str, *replies: Reply) -> str:
    """With those answers of the revocation endpoint, one each; the refresh token."""
    broker.connect(tenant)
    token = provider._current[max(provider._current)]
    provider.revocations.clear()
    provider.revocation_replies[:] = replies
    answer = admin.post(f"/admin/tenants/{tenant}/disconnect")
    assert (answer.status_code, answer.json()["status"]) == (200, "disconnected")
    return token


@pytest.mark.parametrize("status", [500, 503, 429, 0])
def test_an_unanswered_revocation_is_tried_again(broker, provider, admin, pending, status):
    tenant = f"tried-{status}"
    token = disconnect(broker, provider, admin, tenant, Reply(b"", status))
    assert outcomes(admin, tenant) == ["failed"]
    assert admin.get(f"/admin/tenants/{tenant}").json()["status"] == "disconnected"
    assert pending(tenant, f"position('{token}' in encode(token, 'escape'))") == "0"
    wait_until(lambda: outcomes(admin, tenant) == ["done", "failed"], 8, "the second try")
    assert pending(tenant, "count(*)") == "0", "and the token is forgotten"
    sent = [(form["token"], form["token_type_hint"]) for form in provider.revocations]
    assert sent == [(token, "refresh_token")] * 2


def test_a_confirmed_revocation_leaves_no_row(broker, provider, admin, pending):
    disconnect(broker, provider, admin, "confirmed")
    assert outcomes(admin, "confirmed") == ["done"]
    assert pending("confirmed", "count(*)") == "0"


@pytest.mark.parametrize("status", [302, 400, 401, 404])
def test_a_refused_revocation_is_not_tried_again(broker, provider, admin, pending, status):
    tenant = f"refused-{status}"
    disconnect(broker, provider, admin, tenant, Reply(b"", status))
    assert outcomes(admin, tenant) == ["failed"]
    assert pending(tenant, "count(*)") == "0"
    assert len(provider.revocations) == 1


def test_retry_after_is_honoured(broker, provider, admin, pending):
    disconnect(broker, provider, admin, "later", Reply(b"", 503, {"Retry-After": "600"}))
    left = int(pending("later", "extract(epoch FROM next_try_at - now())::int"))
    assert 590 <= left <= 600


def test_a_revocation_is_given_up_after_a_day(
    broker, provider, admin, pending, postgres, database_url
):
    away = Reply(b"", 503, {"Retry-After": "600"})
    disconnect(broker, provider, admin, "day", away, away)
    sql(
        postgres,
        database_url,
        "UPDATE pending_revocations SET next_try_at = now(), "
        "requested_at = now() - interval '25 hours' WHERE tenant_id = 'day'",
    )
    wait_until(lambda: outcomes(admin, "day") == ["given_up", "failed"], 5)
    assert pending("day", "count(*)") == "0"
    assert "revocation_given_up" in broker.log_text()


def test_another_replica_takes_over_a_killed_replicas_revocation(
    broker, provider, admin, pending, postgres, database_url
):
    """As `pending_revocations.add` leaves it: the lease of whoever was killed runs out."""
    token = disconnect(broker, provider, admin, "killed", Reply(b"", 503, {"Retry-After": "600"}))
    sql(
        postgres,
        database_url,
        "UPDATE pending_revocations SET next_try_at = now(), tries = 0 WHERE tenant_id = 'killed'",
    )
    wait_until(lambda: outcomes(admin, "killed") == ["done", "failed"], 5)
    assert provider.revocations[-1]["token"] == token
