"""Grants without a refresh token: served to their end, never claimed, announced and then ended."""

from __future__ import annotations

import re

import httpx
import pytest
from tests.conftest import Broker, consent, follow, sha256, sql, wait_until
from tests.service.odd_provider import OddProvider, merged

HALF_GONE = "issued_at = now() - interval '1 hour', expires_at = now() + interval '100 seconds'"


@pytest.fixture(scope="module")
def provider():
    server = OddProvider()
    server.gives_refresh_tokens = False
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
def row(postgres, database_url):
    """Of a tenant's grant, one column or expression as psql prints it."""
    return lambda tenant, columns: sql(
        postgres, database_url, f"SELECT {columns} FROM grants WHERE tenant_id = '{tenant}'"
    )


@pytest.fixture
def change(postgres, database_url):
    return lambda tenant, columns: sql(
        postgres, database_url, f"UPDATE grants SET {columns} WHERE tenant_id = '{tenant}'"
    )


def problem(answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].removeprefix("urn:ignition-broker:")


def events(admin, tenant: str, action: str) -> list[dict]:
    found = admin.get(f"/admin/audit?tenant={tenant}").json()["events"]
    return [event for event in found if event["action"] == action]


def console(broker: Broker) -> str:
    with httpx.Client(base_url=broker.url) as browser:
        form = browser.get("/login").text
        token = re.search(r'name="csrf" value="([^"]+)"', form)
        fields = {"key": broker.admin_key, "csrf": token[1] if token else ""}
        browser.post("/login", data=fields)
        return follow(browser, "/").text


def test_a_grant_without_a_refresh_token_is_served_and_not_ended(broker, provider, admin, row):
    """Neither a min_ttl near the lifetime, nor a 401 of one path, nor an admin's refresh."""
    page = broker.connect("acme").text
    assert "no refresh token" in page
    shown = admin.get("/admin/tenants/acme").json()
    assert (shown["status"], shown["renewable"]) == ("connected", False)
    assert shown["expires_at"] is not None
    assert "can&#39;t be renewed" in console(broker) or "can't be renewed" in console(broker)
    assert "renewable: False" in broker.command("tenants", "show", "acme").stdout
    asked = len(provider.requests)
    token = admin.get("/token/acme").json()["access_token"]
    digest = sha256(token)

    # Of 3600 seconds; a quick machine gets here within the first.
    wait_until(lambda: admin.get("/token/acme").json()["expires_in"] < 3599, 5)
    for query in ("min_ttl=3599", "min_ttl=3600", "min_ttl=999999"):
        answer = admin.get(f"/token/acme?{query}")
        assert problem(answer) == (409, "not-renewable"), query
        assert "no refresh token" in answer.json()["detail"]
    assert problem(admin.post("/token/acme/refresh")) == (409, "not-renewable")
    rejected = admin.post("/token/acme/refresh", json={"rejected_token_sha256": digest})
    assert problem(rejected) == (409, "not-renewable")
    forwarded = admin.get(f"/forward-auth/acme?rejected_token_sha256={digest}")
    assert problem(forwarded) == (409, "not-renewable")
    assert broker.command("tenants", "refresh", "acme").returncode == 1
    # The fake API does not know this provider's tokens.
    for _ in range(2):
        proxied = admin.get("/proxy/acme/echo")
        assert proxied.status_code == 401
        assert "broker-error" not in proxied.headers
        assert "www-authenticate" in proxied.headers

    assert admin.get("/token/acme").json()["access_token"] == token
    assert admin.get("/token/acme?min_ttl=3000").json()["access_token"] == token
    assert admin.get("/forward-auth/acme").headers["authorization"] == f"Bearer {token}"
    assert admin.get("/admin/tenants/acme").json()["status"] == "connected"
    assert len(provider.requests) == asked
    assert row("acme", "lease_owner, refresh_started_at, next_refresh_at") == "||"
    assert events(admin, "acme", "refresh") == []


def test_a_grant_without_a_refresh_token_is_reported_when_it_ends(broker, provider, admin):
    provider.shapes.append(merged(expires_in=6))
    broker.connect("short")
    token = admin.get("/token/short?min_ttl=0").json()
    assert 0 < token["expires_in"] <= 6, "served although it lives for less than a minute"
    assert problem(admin.get("/token/short?min_ttl=7")) == (409, "not-renewable")
    assert events(admin, "short", "grant_end") == []

    wait_until(lambda: events(admin, "short", "grant_end"), 6, "a warning ahead of the end")
    shown = admin.get("/admin/tenants/short").json()
    assert shown["status"] == "connected"
    assert "connect it again" in shown["last_error"]
    assert admin.get("/token/short").json()["access_token"] == token["access_token"]
    assert re.search(
        r"broker_grants_ending_soon_total [1-9]", httpx.get(f"{broker.url}/metrics").text
    )
    assert "grant_ending_soon" in broker.log_text()

    status = wait_until(
        lambda: (
            admin.get("/admin/tenants/short").json()["status"] != "connected"
            and admin.get("/admin/tenants/short").json()["status"]
        ),
        9,
        "the end",
    )
    assert status == "reauthorization_required"
    assert "no refresh token" in admin.get("/admin/tenants/short").json()["last_error"]
    assert problem(admin.get("/token/short")) == (409, "reauthorization-required")
    ended = events(admin, "short", "grant_end")
    assert [event["outcome"] for event in ended] == ["ended", "ending_soon"]
    assert broker.connect("short").status_code == 200
    assert admin.get("/token/short").status_code == 200


def test_a_caller_who_comes_first_records_the_end(broker, admin, change):
    broker.connect("late")
    change("late", "expires_at = now() - interval '1 second'")
    assert problem(admin.get("/token/late?min_ttl=0")) == (409, "reauthorization-required")
    shown = admin.get("/admin/tenants/late").json()
    assert (shown["status"], shown["renewable"]) == ("reauthorization_required", False)


def test_a_disconnect_revokes_the_access_token(broker, provider, admin):
    broker.connect("leaving")
    token = admin.get("/token/leaving").json()["access_token"]
    provider.revocations.clear()
    assert admin.post("/admin/tenants/leaving/disconnect").json()["status"] == "disconnected"
    sent = {name: provider.revocations[0][name] for name in ("token", "token_type_hint")}
    assert sent == {"token": token, "token_type_hint": "access_token"}


def test_a_token_without_a_known_end_is_served_on(broker, provider, admin, row):
    provider.shapes.append(merged(expires_in=None))
    link = admin.post("/admin/tenants/endless/connect-link").json()["url"]
    with httpx.Client() as browser:
        page = consent(browser, browser.post(link))
        assert "never, as far as Ignition says" in page.text
        assert "never, as far as Ignition says" in browser.get(page.url).text, "a second visit"
    shown = admin.get("/admin/tenants/endless").json()
    assert (shown["renewable"], shown["expires_at"]) == (False, None)
    token = admin.get("/token/endless?min_ttl=86400").json()
    assert token["expires_in"] == 3600, "callers come again, and so hear of a reconnect"
    assert token["expires_at"] is not None
    digest = sha256(token["access_token"])
    rejected = admin.post("/token/endless/refresh", json={"rejected_token_sha256": digest})
    assert problem(rejected) == (409, "not-renewable")
    assert row("endless", "expires_at > now() + interval '9 years'") == "t"
    assert admin.get("/admin/tenants/endless").json()["status"] == "connected"


def test_a_reconnect_without_a_refresh_token_ends_nothing_early(broker, provider, admin, row):
    provider.gives_refresh_tokens = True
    broker.connect("again")
    provider.gives_refresh_tokens = False
    old = admin.get("/token/again").json()["access_token"]
    assert admin.get("/admin/tenants/again").json()["renewable"] is True
    broker.connect("again")
    assert admin.get("/admin/tenants/again").json()["renewable"] is False
    token = admin.get("/token/again").json()["access_token"]
    assert token != old
    assert problem(admin.get("/token/again?min_ttl=3600")) == (409, "not-renewable")
    assert admin.get("/token/again").json()["access_token"] == token
    provider.gives_refresh_tokens = True
    broker.connect("again")
    provider.gives_refresh_tokens = False
    assert admin.get("/admin/tenants/again").json()["renewable"] is True
    assert admin.post("/token/again/refresh").status_code == 200


def test_what_a_release_before_stored_empty_is_noted_when_it_is_opened(
    broker, provider, admin, row, change
):
    """By the background refresher, or by a caller; neither asks Ignition nor ends the grant."""
    as_before = "empty_refresh_token = NULL, "
    broker.connect("older")
    change("older", as_before + "next_refresh_at = now() - interval '1 second'")
    wait_until(lambda: admin.get("/admin/tenants/older").json()["renewable"] is False, 5)
    assert row("older", "lease_owner, refresh_started_at, next_refresh_at") == "||"

    broker.connect("older-still")
    change("older-still", as_before + HALF_GONE)
    asked = len(provider.requests)
    assert admin.get("/admin/tenants/older-still").json()["renewable"] is True
    token = admin.get("/token/older-still").json()["access_token"]
    assert problem(admin.get("/token/older-still?min_ttl=200")) == (409, "not-renewable")
    assert admin.get("/token/older-still").json()["access_token"] == token
    assert admin.get("/admin/tenants/older-still").json()["renewable"] is False
    assert len(provider.requests) == asked


def test_a_refresh_token_that_a_release_before_stored_counts_whatever_was_noted(
    broker, provider, admin, row, change
):
    """The note stays, and is of another ciphertext."""
    broker.connect("mixed")
    note = row("mixed", "encode(empty_refresh_token, 'hex')")
    assert note
    provider.gives_refresh_tokens = True
    broker.connect("mixed")
    provider.gives_refresh_tokens = False
    change("mixed", f"empty_refresh_token = decode('{note}', 'hex')")
    assert admin.get("/admin/tenants/mixed").json()["renewable"] is True
    assert admin.post("/token/mixed/refresh").status_code == 200


def test_a_rotation_of_keys_keeps_what_was_noted(broker, admin, row):
    broker.connect("rotated")
    before = row("rotated", "encode(empty_refresh_token, 'hex')")
    keys = broker.settings["BROKER_ENCRYPTION_KEYS"]
    new = broker.command("keys", "generate").stdout.strip()
    broker.settings["BROKER_ENCRYPTION_KEYS"] = f"{new},{keys}"
    try:
        assert broker.command("keys", "rotate").returncode == 0
    finally:
        broker.settings["BROKER_ENCRYPTION_KEYS"] = keys
    assert row("rotated", "encode(empty_refresh_token, 'hex')") not in ("", before)
    assert admin.get("/admin/tenants/rotated").json()["renewable"] is False


NAMES = ("refresh_token_expires_in", "x_refresh_token_expires_in", "refresh_expires_in")


@pytest.mark.parametrize("name", NAMES)
def test_when_a_refresh_token_lapses_is_kept_and_shown(broker, provider, admin, row, name):
    provider.gives_refresh_tokens = True
    provider.shapes.append(merged(**{name: "2400"}))
    broker.connect("lapsing")
    provider.gives_refresh_tokens = False
    left = "extract(epoch FROM {} - now())::int"
    assert 2390 <= int(row("lapsing", left.format("refresh_token_expires_at"))) <= 2400
    assert 1400 <= int(row("lapsing", left.format("next_refresh_at"))) <= 1600, "two thirds of it"
    assert admin.get("/admin/tenants/lapsing").json()["refresh_token_expires_at"] is not None
    assert "refresh token until" in console(broker)
    shown = broker.command("tenants", "show", "lapsing").stdout
    assert re.search(r"refresh_token_expires_at: \d{4}-", shown)


@pytest.mark.parametrize(
    ("elapsed", "lifetime", "due"),
    [
        # It moves with each answer: renewed at two thirds of it.
        (100, 2400, (1400, 1600)),
        # Its end is fixed, and renewing early gains nothing: by the access token's life.
        (100, 2300, (3200, 3400)),
        # Too soon to tell.
        (0, 2400, (1400, 1600)),
    ],
)
def test_an_end_that_a_renewal_moves_is_renewed_well_before(
    broker, provider, admin, row, change, elapsed, lifetime, due
):
    provider.gives_refresh_tokens = True
    provider.more = {"refresh_token_expires_in": 2400}
    broker.connect("sliding")
    back = f"interval '{elapsed} seconds'"
    change(
        "sliding",
        f"connected_at = connected_at - {back}, "
        f"refresh_token_expires_at = refresh_token_expires_at - {back}",
    )
    provider.more = {"refresh_token_expires_in": lifetime}
    assert admin.post("/token/sliding/refresh").status_code == 200
    provider.more = {}
    next_in = int(row("sliding", "extract(epoch FROM next_refresh_at - now())::int"))
    assert due[0] <= next_in <= due[1]
    kept = row("sliding", "refresh_token_expires_at")
    provider.shapes.append(merged(refresh_token=None))
    sent = provider.requests[-1]["refresh_token"]
    assert admin.post("/token/sliding/refresh").status_code == 200
    provider.gives_refresh_tokens = False
    assert provider.requests[-1]["refresh_token"] != sent
    assert row("sliding", "refresh_token_expires_at") == kept, "the old one stays in force"


def test_an_idle_grant_is_renewed_before_its_refresh_token_lapses(broker, provider, admin, change):
    provider.gives_refresh_tokens = True
    provider.more = {"refresh_token_expires_in": 3}
    broker.connect("idle")
    change("idle", "used_at = now() - interval '10 days'")
    wait_until(lambda: len(events(admin, "idle", "refresh")) >= 2, 8, "two renewals")
    provider.more, provider.gives_refresh_tokens = {}, False
    assert admin.get("/admin/tenants/idle").json()["status"] == "connected"
    assert provider.reuses == 0
    admin.post("/admin/tenants/idle/disconnect")
