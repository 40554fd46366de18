"""A callback that comes a second time: a reload, a double click, a connection that was lost."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from tests.conftest import decide, sql, wait_until
from tests.service.test_pages_and_callback import begin, status_of


@pytest.fixture
def browser(broker):
    with httpx.Client(base_url=broker.url, timeout=30) as client:
        yield client


def visits(browser: httpx.Client, fake, callback: str, count: int) -> list[httpx.Response]:
    """All at once, while Ignition takes its time with the first."""
    fake.fail("token", 1, delay_seconds=1.0)
    cookies = dict(browser.cookies)

    def visit(number: int) -> httpx.Response:
        time.sleep(number * 0.1)
        return httpx.get(callback, cookies=cookies, timeout=30)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(visit, range(count)))


def test_a_double_click_shows_the_success_twice_and_sends_the_code_once(browser, broker, fake):
    callback = decide(browser, begin(browser, broker, "clicked-twice"))
    before = fake.counters()["token_requests"]
    pages = visits(browser, fake, callback, 3)
    assert [page.status_code for page in pages] == [200, 200, 200]
    assert all("clicked-twice is connected" in page.text for page in pages)
    assert fake.counters()["token_requests"] == before + 1
    with broker.client() as admin:
        events = admin.get("/admin/audit?tenant=clicked-twice").json()["events"]
    assert [event["outcome"] for event in events if event["action"] == "connect"] == [
        "done",
        "begun",
    ]


def test_a_second_visit_of_what_fails_says_so(browser, broker, fake):
    callback = decide(browser, begin(browser, broker, "failing"))
    fake.fail("token", 1, status=400, body='{"error": "invalid_grant"}', delay_seconds=1.0)
    cookies = dict(browser.cookies)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(httpx.get, callback, cookies=cookies, timeout=30)
        time.sleep(0.3)
        second = pool.submit(httpx.get, callback, cookies=cookies, timeout=30)
    assert (first.result().status_code, second.result().status_code) == (400, 400)
    assert browser.get(callback).status_code == 400
    assert status_of(broker, "failing") == "disconnected"


def test_the_success_is_shown_as_long_as_it_holds(browser, broker, postgres, database_url):
    callback = decide(browser, begin(browser, broker, "held"))
    assert browser.get(callback).status_code == 200
    sql(postgres, database_url, "UPDATE callbacks SET taken_at = now() - interval '59 minutes'")
    assert "held is connected" in browser.get(callback).text
    sql(postgres, database_url, "UPDATE callbacks SET taken_at = now() - interval '61 minutes'")
    assert browser.get(callback).status_code == 400
    sql(postgres, database_url, "UPDATE callbacks SET taken_at = now()")
    with broker.client() as admin:
        admin.post("/admin/tenants/held/disconnect")
    over = browser.get(callback)
    assert over.status_code == 400
    assert "disconnected or connected anew" in over.text


def test_while_nobody_knows_the_page_looks_again_by_itself(browser, broker, postgres, database_url):
    callback = decide(browser, begin(browser, broker, "unknown-yet"))
    # As another replica leaves it while it waits for the answer to the code.
    sql(
        postgres,
        database_url,
        "WITH taken AS (DELETE FROM authorizations WHERE tenant_id = 'unknown-yet' RETURNING *) "
        "INSERT INTO callbacks (state_hash, browser_hash, tenant_id, generation) "
        "SELECT state_hash, browser_hash, tenant_id, generation FROM taken",
    )
    page = browser.get(callback)
    assert page.status_code == 202
    assert 'http-equiv="refresh"' in page.text
    assert "may still succeed" in page.text
    aged = "UPDATE callbacks SET taken_at = now() - interval '10 minutes' WHERE expires_at IS NULL"
    sql(postgres, database_url, aged)
    assert browser.get(callback).status_code == 400


def test_a_look_without_a_get_sends_no_code(browser, broker, fake):
    callback = decide(browser, begin(browser, broker, "looked-at"))
    before = fake.counters()["token_requests"]
    assert not browser.head(callback).is_success
    assert not browser.options(callback).is_success
    assert fake.counters()["token_requests"] == before
    assert browser.get(callback).status_code == 200


def test_an_empty_error_beside_a_good_code_is_none(browser, broker):
    callback = decide(browser, begin(browser, broker, "no-error"))
    page = browser.get(f"{callback}&error=&error_description=")
    assert page.status_code == 200
    assert status_of(broker, "no-error") == "connected"


def test_old_callbacks_are_cleared(browser, broker, postgres, database_url):
    callback = decide(browser, begin(browser, broker, "cleared"))
    assert browser.get(callback).status_code == 200
    mine = "FROM callbacks WHERE tenant_id = 'cleared'"
    sql(postgres, database_url, "UPDATE callbacks SET taken_at = now() - interval '25 hours'")
    wait_until(
        lambda: sql(postgres, database_url, f"SELECT count(*) {mine}") == "0", 30, "the clearing"
    )
