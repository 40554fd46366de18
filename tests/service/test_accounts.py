"""Whose account a tenant is connected to: asked of the real fake, compared at each reconnect."""

from __future__ import annotations

import re
import secrets
import time

import httpx
import pytest
from tests.conftest import decide, sha256, sql, wait_until


@pytest.fixture(scope="module")
def more_settings(fake) -> dict[str, str]:
    return {
        "IGNITION_IDENTITY_URL": f"{fake.url}/v1/me",
        "IGNITION_IDENTITY_ID": "/practice_id",
        "IGNITION_IDENTITY_NAME": "/practice",
    }


@pytest.fixture
def admin(broker):
    with broker.client() as client:
        yield client


@pytest.fixture
def tenant() -> str:
    return f"t-{secrets.token_hex(4)}"


def new_practice() -> str:
    return f"practice_{secrets.token_hex(4)}"


def connect(broker, tenant: str, practice: str) -> tuple[httpx.Response, httpx.Client, str]:
    """The callback's page, the browser that brought it, and the callback's address."""
    with broker.client() as admin:
        link = admin.post(f"/admin/tenants/{tenant}/connect-link").json()["url"]
    browser = httpx.Client(timeout=30)
    started = browser.post(link)
    assert started.status_code == 303, started.text
    url = choose(browser, started.headers["location"], practice)
    return browser.get(url), browser, url


def choose(browser: httpx.Client, authorization_url: str, practice: str) -> str:
    """The callback's address, after the practice was chosen on the consent page."""

    class Choosing:
        def get(self, url):
            return browser.get(url)

        def post(self, url, data):
            return browser.post(url, data={**data, "practice": practice})

    return decide(Choosing(), authorization_url)


def shown(admin, tenant: str):
    answer = admin.get(f"/admin/tenants/{tenant}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def token(admin, tenant: str) -> str:
    answer = admin.get(f"/token/{tenant}")
    assert answer.status_code == 200, answer.text
    return answer.json()["access_token"]


def practice_of(admin, tenant: str) -> str:
    return admin.get(f"/proxy/{tenant}/v1/me").json()["practice_id"]


def events(admin, tenant: str) -> list[tuple[str, str]]:
    found = admin.get(f"/admin/audit?tenant={tenant}").json()["events"]
    return [(each["action"], each["outcome"]) for each in found]


def newest_of(admin, tenant: str, action: str):
    """Other events, such as that a token was handed out, may follow it within a second."""
    found = admin.get(f"/admin/audit?tenant={tenant}").json()["events"]
    return next((each for each in found if each["action"] == action), None)


def test_the_account_is_shown_by_page_api_and_audit_trail(broker, admin, tenant):
    page, *_ = connect(broker, tenant, "practice_2")
    assert page.status_code == 200
    assert "Quillmark &amp; Fenn" in page.text
    assert shown(admin, tenant)["account"] == {"id": "practice_2", "name": "Quillmark & Fenn"}
    assert ("account", "identified") in events(admin, tenant)
    listed = admin.get("/admin/tenants?limit=1000").json()["tenants"]
    row = shown(admin, tenant)
    del row["allowance"]  # only of one tenant
    assert row in listed


def test_a_reconnect_to_the_same_account_replaces_the_grant(broker, admin, tenant):
    practice = new_practice()
    connect(broker, tenant, practice)
    before = token(admin, tenant)
    page, *_ = connect(broker, tenant, practice)
    assert page.status_code == 200
    assert token(admin, tenant) != before
    row = shown(admin, tenant)
    assert (row["account"]["id"], row["pending_account"]) == (practice, None)


def test_a_reconnect_to_another_account_replaces_nothing_until_it_is_confirmed(
    broker, admin, tenant
):
    mine, other = new_practice(), new_practice()
    connect(broker, tenant, mine)
    before = token(admin, tenant)
    page, browser, url = connect(broker, tenant, other)
    assert page.status_code == 409
    assert "account-mismatch" in page.text
    assert other in page.text
    assert mine not in page.text, "the holder of a link need not know who was before"
    assert browser.get(url).status_code == 409, "a reload says the same"
    row = shown(admin, tenant)
    assert (row["account"]["id"], row["pending_account"]["id"]) == (mine, other)
    assert row["status"] == "connected"
    assert token(admin, tenant) == before
    assert practice_of(admin, tenant) == mine
    assert newest_of(admin, tenant, "connect")["outcome"] == "account_mismatch"

    refused = admin.post(
        f"/admin/tenants/{tenant}/confirm-account", json={"account_id": "practice_9"}
    )
    assert (refused.status_code, refused.json()["type"]) == (
        409,
        "urn:ignition-broker:account-mismatch",
    )
    assert token(admin, tenant) == before
    confirmed = admin.post(f"/admin/tenants/{tenant}/confirm-account", json={"account_id": other})
    assert confirmed.status_code == 200, confirmed.text
    assert confirmed.json()["account"]["id"] == other
    assert confirmed.json()["pending_account"] is None
    wait_until(lambda: practice_of(admin, tenant) == other, what="the other account's token")
    assert ("account_confirm", "done") in events(admin, tenant)
    assert browser.get(url).status_code == 200, "whoever signed in sees that it is connected"
    again = admin.post(f"/admin/tenants/{tenant}/confirm-account", json={"account_id": other})
    assert (again.status_code, again.json()["type"]) == (404, "urn:ignition-broker:not-found")
    renewed = admin.post(f"/token/{tenant}/refresh")
    assert renewed.status_code == 200, "the held refresh token works"


def test_a_discarded_account_leaves_everything_and_its_grant_is_revoked(
    broker, admin, fake, tenant
):
    mine, other = new_practice(), new_practice()
    connect(broker, tenant, mine)
    before = token(admin, tenant)
    assert connect(broker, tenant, other)[0].status_code == 409
    revoked = fake.counters()["revocations"]
    answer = admin.post(f"/admin/tenants/{tenant}/discard-account")
    assert (answer.status_code, answer.json()["pending_account"]) == (200, None)
    assert fake.counters()["revocations"] == revoked + 1
    assert token(admin, tenant) == before
    assert practice_of(admin, tenant) == mine
    assert admin.post(f"/admin/tenants/{tenant}/discard-account").status_code == 404


def test_a_held_grant_whose_account_another_tenant_uses_is_not_revoked(broker, admin, fake, tenant):
    """At some providers that would end the other tenant's grant."""
    mine, other = new_practice(), new_practice()
    connect(broker, f"{tenant}-theirs", other)
    connect(broker, tenant, mine)
    assert connect(broker, tenant, other)[0].status_code == 409
    revoked = fake.counters()["revocations"]
    assert admin.post(f"/admin/tenants/{tenant}/discard-account").status_code == 200
    assert fake.counters()["revocations"] == revoked


def test_a_disconnect_ends_what_is_held_too(broker, admin, tenant):
    connect(broker, tenant, new_practice())
    other = new_practice()
    assert connect(broker, tenant, other)[0].status_code == 409
    assert admin.post(f"/admin/tenants/{tenant}/disconnect").status_code == 200
    assert shown(admin, tenant)["pending_account"] is None
    answer = admin.post(f"/admin/tenants/{tenant}/confirm-account", json={"account_id": other})
    assert answer.status_code == 404
    page, *_ = connect(broker, tenant, new_practice())
    assert page.status_code == 409, "the account of before is still what is expected"
    assert shown(admin, tenant)["status"] == "disconnected"


def test_tenants_that_share_an_account_are_shown(broker, admin, tenant):
    practice = new_practice()
    connect(broker, f"{tenant}-a", practice)
    assert shown(admin, f"{tenant}-a")["account_shared_with"] == []
    connect(broker, f"{tenant}-b", practice)
    assert shown(admin, f"{tenant}-a")["account_shared_with"] == [f"{tenant}-b"]
    assert shown(admin, f"{tenant}-b")["account_shared_with"] == [f"{tenant}-a"]
    assert '"account_shared"' in broker.log_text()
    page, *_ = connect(broker, f"{tenant}-c", practice)
    assert f"{tenant}-a" not in page.text, "whoever connects must not learn of other tenants"
    admin.post(f"/admin/tenants/{tenant}-a/disconnect")
    assert shown(admin, f"{tenant}-b")["account_shared_with"] == [f"{tenant}-c"]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"status": 404}, "answered 404: check the address"),
        ({"status": 403}, "IGNITION_SCOPES"),
        ({"body": "<html>", "status": 200}, "is no JSON"),
        ({"body": '{"id": 1}', "status": 200}, "IGNITION_IDENTITY_ID does not lead to an id"),
        ({"status": 503, "count": 3}, "answered 503"),
        ({"drop": "after", "count": 3}, "IGNITION_IDENTITY_URL"),
    ],
)
def test_a_probe_that_fails_costs_no_grant_and_is_told(broker, admin, fake, tenant, fault, told):
    practice = new_practice()
    for _first_then_again in range(2):
        fake.fail("api", **fault)
        with broker.client() as maker:
            link = maker.post(f"/admin/tenants/{tenant}/connect-link").json()["url"]
        with httpx.Client(timeout=30) as browser:
            url = choose(browser, browser.post(link).headers["location"], practice)
            assert wait_until(lambda url=url, browser=browser: browser.get(url).status_code == 200)
        wait_until(lambda: shown(admin, tenant)["status"] == "connected")
        assert token(admin, tenant)
        newest = wait_until(lambda: newest_of(admin, tenant, "account"))
        assert newest["outcome"] == "unidentified"
        assert told in newest["detail"]["reason"]
        assert shown(admin, tenant)["account"] is None
        assert "account_unidentified" in broker.log_text()
        # The second time round there is an account to compare with.
        connect(broker, tenant, practice)
        assert shown(admin, tenant)["account"]["id"] == practice


def test_a_slow_probe_loses_nothing_and_the_page_waits(broker, admin, fake, tenant):
    fake.fail("api", delay_seconds=2.5)
    began = time.monotonic()
    page, browser, url = connect(broker, tenant, "practice_3")
    assert page.status_code == 202
    assert time.monotonic() - began < 10
    assert token(admin, tenant), "its tokens were stored before the probe was asked"
    wait_until(lambda: (shown(admin, tenant)["account"] or {}).get("id") == "practice_3")
    assert browser.get(url).status_code == 200


def test_a_replica_that_is_killed_while_it_asks_leaves_the_tokens_to_another(
    broker, admin, fake, tenant, postgres, database_url
):
    practice = new_practice()
    connect(broker, tenant, practice)
    before = token(admin, tenant)
    fake.fail("api", delay_seconds=2.9)
    assert connect(broker, tenant, practice)[0].status_code == 202
    assert token(admin, tenant) == before, "nothing is replaced before the account is known"
    broker.process.kill()
    broker.process.wait(10)
    held = f"FROM held_grants WHERE tenant_id = '{tenant}'"
    assert sql(postgres, database_url, f"SELECT count(*) {held}") == "1"
    broker.start()
    sql(
        postgres,
        database_url,
        f"UPDATE held_grants SET next_try_at = now() WHERE tenant_id = '{tenant}'",
    )
    wait_until(lambda: sql(postgres, database_url, f"SELECT count(*) {held}") == "0")
    with broker.client() as again:
        wait_until(lambda: token(again, tenant) != before, what="the held token")
        assert shown(again, tenant)["account"]["id"] == practice


def test_what_nobody_confirms_within_a_week_is_let_go(
    broker, admin, fake, tenant, postgres, database_url
):
    mine = new_practice()
    connect(broker, tenant, mine)
    assert connect(broker, tenant, new_practice())[0].status_code == 409
    revoked = fake.counters()["revocations"]
    sql(
        postgres,
        database_url,
        "UPDATE held_grants SET next_try_at = now() - interval '1 s', "
        f"expires_at = now() - interval '1 s' WHERE tenant_id = '{tenant}'",
    )
    assert shown(admin, tenant)["pending_account"] is None
    wait_until(lambda: ("account_discard", "expired") in events(admin, tenant))
    assert fake.counters()["revocations"] == revoked + 1
    assert practice_of(admin, tenant) == mine


def test_held_tokens_are_encrypted_and_rotate_with_the_keys(
    broker, admin, tenant, postgres, database_url
):
    connect(broker, tenant, new_practice())
    other = new_practice()
    assert connect(broker, tenant, other)[0].status_code == 409
    column = f"SELECT encode(access_token, 'escape') FROM held_grants WHERE tenant_id = '{tenant}'"
    before = sql(postgres, database_url, column)
    assert before.startswith("gAAAA")
    old = broker.settings["BROKER_ENCRYPTION_KEYS"]
    new = broker.command("keys", "generate").stdout.strip()
    broker.settings["BROKER_ENCRYPTION_KEYS"] = f"{new},{old}"
    assert broker.command("keys", "rotate").returncode == 0
    assert sql(postgres, database_url, column) != before
    broker.settings["BROKER_ENCRYPTION_KEYS"] = new
    broker.stop()
    broker.start()
    with broker.client() as again:
        answer = again.post(f"/admin/tenants/{tenant}/confirm-account", json={"account_id": other})
        assert answer.status_code == 200, answer.text
        assert practice_of(again, tenant) == other


def test_the_command_line_shows_confirms_and_discards(broker, tenant):
    mine, other = new_practice(), new_practice()
    connect(broker, tenant, mine)
    assert connect(broker, tenant, other)[0].status_code == 409
    text = broker.command("tenants", "show", tenant).stdout
    assert f"account: {mine} ({mine})" in text
    assert re.search(rf"pending_account: {other} \({other}, until \d{{4}}-", text)
    wrong = broker.command("tenants", "confirm-account", tenant, mine)
    assert (wrong.returncode, other in wrong.stderr) == (1, True), wrong.stderr
    done = broker.command("tenants", "confirm-account", tenant, other)
    assert (done.returncode, done.stdout) == (0, f"{tenant}: connected to account {other}\n")
    none = broker.command("tenants", "discard-account", tenant)
    assert none.returncode == 1
    assert "No other account waits" in none.stderr


def test_no_token_of_a_held_grant_is_in_log_audit_or_answers(broker, admin, fake, tenant):
    connect(broker, tenant, new_practice())
    other = new_practice()
    page, *_ = connect(broker, tenant, other)
    row = admin.get(f"/admin/tenants/{tenant}").text
    trail = admin.get(f"/admin/audit?tenant={tenant}").text
    admin.post(f"/admin/tenants/{tenant}/confirm-account", json={"account_id": other})
    wait_until(lambda: practice_of(admin, tenant) == other)
    held = token(admin, tenant)
    for text in (page.text, row, trail, broker.log_text()):
        assert held not in text
        assert sha256(held) not in text
