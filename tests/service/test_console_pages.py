"""The console's pages over HTTP: what they show, what they keep to themselves, what they cost."""

from __future__ import annotations

import json
import time
from urllib.parse import urlencode

import httpx
import pytest
from sqlalchemy import TextClause
from sqlalchemy.dialects import postgresql
from tests.conftest import sql, wait_until
from tests.service.test_pages_and_callback import hidden, sign_in

from ignition_broker.model import GrantStatus
from ignition_broker.storage import audit_search, grants, overview, refresh_hours, tenants

SECRET = "hunter2-hunter2-hunter2"


@pytest.fixture(scope="module")
def more_settings():
    return {"IGNITION_CLIENT_SECRET_PREVIOUS": SECRET, "NO_PROXY": "*"} | {
        "HTTPS_PROXY": f"http://user:{SECRET}@127.0.0.1:9"
    }


@pytest.fixture(scope="module")
def browser(broker):
    with httpx.Client(base_url=broker.url, timeout=30, headers={"Accept": "text/html"}) as client:
        sign_in(client, broker.admin_key)
        yield client


def tenants_on(page: str) -> list[str]:
    return [part.partition('"')[0] for part in page.split('<a href="/tenant?tenant=')[1:]]


def test_no_secret_is_on_the_page_of_the_settings(browser, broker):
    page = browser.get("/settings").text
    assert "IGNITION_CLIENT_SECRET_PREVIOUS" in page
    assert "HTTPS_PROXY" in page
    for name in ("IGNITION_CLIENT_SECRET", "BROKER_ADMIN_KEY", "BROKER_ENCRYPTION_KEYS"):
        assert broker.settings[name] not in page
    assert SECRET not in page
    assert broker.settings["DATABASE_URL"] not in page


def test_a_search_is_by_how_ids_and_names_begin_in_any_case(browser, broker):
    with broker.client() as admin:
        for tenant, name in (
            ("zeta-1", "Harbour Books"),
            ("zeta-2", None),
            ("other-z", "Zeta Ltd"),
        ):
            admin.post(f"/admin/tenants/{tenant}/connect-link").raise_for_status()
            admin.put(f"/admin/tenants/{tenant}", json={"name": name}).raise_for_status()
    assert tenants_on(browser.get("/tenants?q=ZETA").text) == ["other-z", "zeta-1", "zeta-2"]
    assert tenants_on(browser.get("/tenants?q=harbour").text) == ["zeta-1"]
    assert tenants_on(browser.get("/tenants?q=books").text) == []
    for odd in ("%", "_", "\\", "' OR 1=1 --", "\u202e", "x" * 100):
        assert browser.get(f"/tenants?{urlencode({'q': odd})}").status_code == 200
    found = browser.get("/tenants?q=zeta&status=connected").text
    assert tenants_on(found) == []


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/tenant?tenant=nobody", 404, "Unknown tenant"),
        ("/tenant?tenant=NO%20ID", 422, "tenant: must be"),
        ("/tenant?tenant=zeta-1&client=nobodys", 404, "Unknown OAuth client"),
        ("/tenants?label=gold", 422, "key=value"),
        ("/audit?since=yesterday", 422, "From: a time such as"),
        ("/audit?tenant=NO%20ID", 422, "Tenant: must be"),
        ("/audit?before=x", 422, "before"),
        ("/webhook?which=wh_nothing", 404, "No destination"),
        ("/audit/export?until=never", 422, "Until: a time such as"),
        ("/tenants?q=a%00", 422, "q: has a NUL"),
        ("/tenants?label=a%00=b", 422, "label: has a NUL"),
        ("/audit?actor=%00", 422, "Actor: has a NUL"),
        ("/audit?action=%00", 422, "Action: has a NUL"),
        ("/audit?tenant=%00", 422, "Tenant: must be"),
        ("/audit?since=%00", 422, "From: a time such as"),
        ("/tenants?after=%00", 200, "Tenants"),
        ("/webhook?which=%00", 404, "No destination"),
    ],
)
def test_what_is_refused_is_told_on_a_page_that_names_the_field(browser, path, status, said):
    answer = browser.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert said in answer.text


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api-keys/rotate", "name"),
        ("/api-keys/revoke", "name"),
        ("/api-keys/new", "name"),
        ("/tenant/link/revoke", "link"),
        ("/webhook/test", "which"),
        ("/webhook/resend", "which"),
        ("/webhook/secret", "which"),
        ("/webhook/delete", "which"),
        ("/webhooks/new", "target"),
        ("/sessions/end", "which"),
        ("/tenant/refresh", "tenant"),
    ],
)
def test_no_form_takes_a_character_that_postgres_can_not_hold(browser, path, field):
    csrf = hidden(browser.get("/").text, "csrf")
    form = {"tenant": "zeta-1", "scopes": "token", "tenants": "*", "csrf": csrf, field: "a\0"}
    answer = browser.post(path, data=form)
    assert answer.status_code in {404, 422}, answer.text
    assert answer.headers["content-type"].startswith("text/html")


def test_programs_get_problems_and_no_pages(browser):
    answer = browser.get("/tenant?tenant=nobody", headers={"Accept": "application/json"})
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:ignition-broker:unknown-tenant"


def test_the_chart_counts_refreshes_of_all_replicas_by_what_came_of_them(browser, broker, fake):
    broker.connect("counted")
    with broker.client() as admin:
        for _ in range(3):
            assert admin.post("/token/counted/refresh").status_code == 200
        fake.fail("token", 1, status=400, body='{"error": "invalid_grant"}')
        assert admin.post("/token/counted/refresh").status_code == 409
    wait_until(
        lambda: "3 renewed, 0 failed and tried again, 1 refused" in browser.get("/").text, 20
    )
    page = browser.get("/").text
    assert '<rect class="renewed"' in page
    assert '<rect class="refused"' in page
    assert "counted</a> has to be connected again: invalid_grant" in page


def test_an_export_holds_what_was_asked_for_and_nothing_else(browser, broker):
    broker.connect("exported")
    answer = browser.get("/audit/export?tenant=exported&action=connect")
    assert answer.headers["content-disposition"] == 'attachment; filename="audit.jsonl"'
    events = [json.loads(line) for line in answer.text.splitlines()]
    assert {(event["tenant"], event["action"]) for event in events} == {("exported", "connect")}
    assert [event["outcome"] for event in events] == ["done", "begun"]


def test_a_search_of_the_trail_looks_at_so_many_and_says_where_to_go_on(
    browser, postgres, database_url
):
    sql(
        postgres,
        database_url,
        "INSERT INTO audit_events (tenant_id, actor, action, outcome) "
        "SELECT NULL, 'crowd', CASE WHEN n = 1 THEN 'rare_thing' ELSE 'proxy_call' END, 'done' "
        f"FROM generate_series(1, {audit_search.SCANNED + 5}) n",
    )
    first = browser.get("/audit?action=rare_thing").text
    assert "None among the events that were looked through" in first
    older = first.partition('id="older" href="')[2].partition('"')[0].replace("&amp;", "&")
    found = browser.get(older).text
    assert "rare thing" in found
    assert "crowd" in found


def test_an_ended_session_is_turned_away_at_once(browser, broker):
    with httpx.Client(base_url=broker.url) as other:
        sign_in(other, broker.admin_key)
        assert other.get("/").status_code == 200
        page = browser.get("/sessions").text
        which = page.partition('name="which" value="')[2].partition('"')[0]
        form = {"which": which, "csrf": hidden(page, "csrf")}
        assert browser.post("/sessions/end", data=form).headers["location"] == "/sessions"
        assert other.get("/").status_code == 303
        again = browser.post("/sessions/end", data=form)
        assert again.status_code == 404
        assert "ended already" in again.text


def planned(postgres, url: str, statement: TextClause, **given: object) -> str:
    bound = statement.bindparams(**given).compile(
        dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}
    )
    return sql(postgres, url, f"EXPLAIN {bound}".replace("%%", "%"))


def test_among_a_hundred_thousand_tenants_each_page_is_quick_and_read_by_index(
    browser, postgres, database_url
):
    sql(
        postgres,
        database_url,
        "INSERT INTO tenants (id, name) SELECT 'crowd-' || n, 'Practice ' || n "
        "FROM generate_series(1, 100000) n; "
        "INSERT INTO grants (tenant_id, status, version, expires_at, connected_at, "
        "next_refresh_at, access_token, refresh_token) "
        "SELECT 'crowd-' || n, CASE WHEN n % 1000 = 0 THEN 'reauthorization_required' "
        "WHEN n % 10 = 0 THEN 'disconnected' ELSE 'connected' END, 1, now() + interval '1 hour', "
        "now(), now() + interval '1 hour', 'x', 'y' FROM generate_series(1, 100000) n "
        "WHERE n % 100 <> 1",
    )
    # As autovacuum does soon after: it also lets counts be read off the indexes alone.
    sql(postgres, database_url, "VACUUM ANALYZE tenants")
    sql(postgres, database_url, "VACUUM ANALYZE grants")
    keyset = {"after_tenant": "crowd-5", "after_client": "default", "client": None, "limit": 101}
    begins = {"begins": "practice 77", "begins_end": "practice 77\U0010ffff"}
    labels = {"labels": '{"tier": "gold"}'}
    plans = {
        f"{status or 'any'}{' labelled' * by_labels}{' searched' * by_beginning}": planned(
            postgres,
            database_url,
            listing,
            **keyset | (labels if by_labels else {}) | (begins if by_beginning else {}),
        )
        for (status, by_labels, by_beginning), listing in tenants.LISTINGS.items()
    } | {
        "counts": planned(postgres, database_url, overview.COUNT),
        "rows of grants": sql(
            postgres,
            database_url,
            f"EXPLAIN {grants.READ}".replace(":tenants", "'{crowd-1,crowd-5}'"),
        ),
        "endings": planned(postgres, database_url, overview.ENDINGS, limit=10),
        "hours": planned(postgres, database_url, refresh_hours.LIST),
    }
    read_whole = {
        name: plan
        for name, plan in plans.items()
        if "Seq Scan on grants" in plan or "Seq Scan on tenants" in plan
    }
    assert read_whole == {}
    assert "tenants_name_begin" in plans["any searched"], plans["any searched"]
    ended = plans[GrantStatus.REAUTHORIZATION_REQUIRED]
    assert "grants_ended" in ended, ended
    disconnected = plans[GrantStatus.DISCONNECTED]
    assert "tenants_without_grant" in disconnected, disconnected
    seconds = {}
    for path in (
        "/",
        "/tenants",
        "/tenants?status=connected",
        "/tenants?status=reauthorization_required",
        "/tenants?status=disconnected",
        "/tenants?q=practice+77",
        "/tenants?q=crowd-99",
        "/tenant?tenant=crowd-77",
        "/audit",
        "/audit?tenant=crowd-77",
    ):
        tries = []
        for _ in range(5):
            began = time.monotonic()
            assert browser.get(path).status_code == 200
            tries.append(time.monotonic() - began)
        seconds[path] = min(tries)
    print({path: f"{each * 1000:.0f} ms" for path, each in seconds.items()})
    # Promised are 100 ms; under coverage, on a busy machine, that is a multiple. A page that asks
    # for each of its tenants, or looks at all of them, takes longer still.
    assert {path: each for path, each in seconds.items() if each > 3} == {}
    sql(
        postgres,
        database_url,
        "UPDATE grants SET status = 'connected' "
        "WHERE status = 'disconnected' AND tenant_id NOT LIKE 'crowd-7_0'",
    )
    sql(postgres, database_url, "VACUUM ANALYZE grants")
    few = planned(
        postgres, database_url, tenants.LISTINGS[GrantStatus.DISCONNECTED, False, False], **keyset
    )
    assert "grants_disconnected" in few, few
    assert "Seq Scan on grants" not in few, few
