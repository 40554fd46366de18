"""Names and labels of tenants: by the API, the command line and with a connect link."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from sqlalchemy.dialects import postgresql
from tests.conftest import sql

from ignition_broker.model import GrantStatus
from ignition_broker.storage import tenants
from ignition_broker.storage.database import Database


@pytest.fixture
def admin(broker):
    with broker.client() as client:
        yield client


def make(admin, tenant: str, **body):
    answer = admin.post(f"/admin/tenants/{tenant}/connect-link", json=body or None)
    assert answer.status_code == 201, answer.text


def ids(answer) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [row["tenant"] for row in answer.json()["tenants"]]


def test_what_is_left_out_stays_and_null_clears(admin):
    make(admin, "kept")
    shown = admin.get("/admin/tenants/kept")
    assert shown.json().get("name", "absent") is None, shown.text
    assert admin.get("/admin/tenants/kept").json()["labels"] == {}
    put = admin.put("/admin/tenants/kept", json={"name": "Kept Ltd", "labels": {"tier": "gold"}})
    assert (put.status_code, put.json()["name"]) == (200, "Kept Ltd")
    assert put.json()["labels"] == {"tier": "gold"}
    assert put.json() == admin.get("/admin/tenants/kept").json()
    assert admin.put("/admin/tenants/kept", json={}).json() == put.json()
    renamed = admin.put("/admin/tenants/kept", json={"name": "Kept Pty"}).json()
    assert (renamed["name"], renamed["labels"]) == ("Kept Pty", {"tier": "gold"})
    replaced = admin.put("/admin/tenants/kept", json={"labels": {"region": "au"}}).json()
    assert (replaced["name"], replaced["labels"]) == ("Kept Pty", {"region": "au"})
    assert admin.put("/admin/tenants/kept", json={"name": None}).json()["name"] is None
    assert admin.put("/admin/tenants/kept", json={"labels": {}}).json()["labels"] == {}
    assert admin.put("/admin/tenants/kept", json={"labels": {"a": "b"}}).status_code == 200
    assert admin.put("/admin/tenants/kept", json={"labels": None}).json()["labels"] == {}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"name": ""}, "name: must not be empty"),
        ({"name": "a\nb"}, "name: must hold printable"),
        ({"labels": {"a b": "c"}}, "labels: the key 'a b'"),
        ({"labels": {"a": "c" * 201}}, "labels.a: must have at most 200"),
        ({"labels": {f"k{n}": "v" for n in range(21)}}, "labels: at most 20"),
        ({"labels": {"a": 1}}, "labels.a: "),
        ({"labels": ["a=b"]}, "labels: "),
        ({"label": {"a": "b"}}, "label: "),
    ],
)
def test_what_may_not_be_set_is_told_by_its_field_and_nothing_is_set(admin, body, told):
    make(admin, "refused")
    before = admin.get("/admin/tenants/refused").json()
    for answer in (
        admin.put("/admin/tenants/refused", json=body),
        admin.post("/admin/tenants/refused/connect-link", json=body),
        admin.post("/admin/tenants/never-made/connect-link", json=body),
    ):
        assert answer.status_code == 422
        assert answer.json()["type"] == "urn:ignition-broker:invalid-request"
        assert told in answer.json()["detail"]
    assert admin.get("/admin/tenants/refused").json() == before
    assert admin.get("/admin/tenants/never-made").status_code == 404


def test_an_unknown_tenant_is_not_made(admin):
    answer = admin.put("/admin/tenants/unknown", json={"name": "Typo"})
    assert (answer.status_code, answer.json()["type"]) == (
        404,
        "urn:ignition-broker:unknown-tenant",
    )
    assert admin.get("/admin/tenants/unknown").status_code == 404


def test_a_connect_link_sets_them_with_the_tenant_that_it_makes(admin):
    make(admin, "linked", name="Linked Ltd", labels={"tier": "gold"})
    shown = admin.get("/admin/tenants/linked").json()
    assert (shown["name"], shown["labels"]) == ("Linked Ltd", {"tier": "gold"})
    make(admin, "linked")
    assert admin.get("/admin/tenants/linked").json() == shown
    make(admin, "linked", labels={"tier": "silver"})
    assert admin.get("/admin/tenants/linked").json()["name"] == "Linked Ltd"


def test_the_list_is_filtered_by_all_labels_that_are_asked_for(admin):
    make(admin, "f-1", labels={"team": "filter", "tier": "gold"})
    make(admin, "f-2", labels={"team": "filter", "tier": "a=b"})
    make(admin, "f-3", labels={"team": "filtering"})
    assert ids(admin.get("/admin/tenants?label=team=filter")) == ["f-1", "f-2"]
    assert ids(admin.get("/admin/tenants?label=team=filter&label=tier=gold")) == ["f-1"]
    assert ids(admin.get("/admin/tenants?label=team=filter&label=tier=a=b")) == ["f-2"]
    assert ids(admin.get("/admin/tenants?label=team=filter&label=tier=none")) == []
    assert ids(admin.get("/admin/tenants?label=team=filter&status=connected")) == []
    page = admin.get("/admin/tenants?label=team=filter&limit=1")
    assert (ids(page), page.json()["next_cursor"]) == (["f-1"], "f-1")
    assert ids(admin.get("/admin/tenants?label=team=filter&limit=1&cursor=f-1")) == ["f-2"]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("label=team", "label: must be key=value"),
        ("label==x", "labels: the key ''"),
        ("label=a=1&label=a=2", "label: has the key 'a' twice"),
        ("&".join(f"label=k{n}=v" for n in range(21)), "at most 20"),
    ],
)
def test_a_filter_that_is_none_is_refused(admin, query, told):
    answer = admin.get(f"/admin/tenants?{query}")
    assert answer.status_code == 422
    assert told in answer.json()["detail"]


def test_each_change_is_in_the_audit_trail(admin):
    make(admin, "audited", name="One")
    admin.put("/admin/tenants/audited", json={"labels": {"tier": "gold"}})
    admin.put("/admin/tenants/audited", json={"name": None})
    admin.put("/admin/tenants/audited", json={})
    events = admin.get("/admin/audit?tenant=audited").json()["events"]
    assert [each["detail"] for each in events if each["action"] == "tenant_describe"] == [
        {"name": None},
        {"labels": {"tier": "gold"}},
        {"name": "One"},
    ]


def test_the_command_line_sets_and_filters(broker, admin):
    link = broker.command(
        "tenants", "connect-link", "cli-1", "--name", "Cli One", "--label", "via=cli"
    )
    assert link.returncode == 0, link.stderr
    done = broker.command("tenants", "set", "cli-1", "--label", "via=cli", "--label", "n=1")
    assert (done.returncode, done.stdout) == (0, "cli-1: set\n")
    shown = json.loads(broker.command("tenants", "show", "cli-1", "--json").stdout)
    assert (shown["name"], shown["labels"]) == ("Cli One", {"via": "cli", "n": "1"})
    listed = broker.command("tenants", "list", "--label", "via=cli", "--label", "n=1", "--json")
    assert [row["tenant"] for row in json.loads(listed.stdout)] == ["cli-1"]
    cleared = broker.command("tenants", "set", "cli-1", "--no-name", "--no-labels")
    assert cleared.returncode == 0, cleared.stderr
    after = admin.get("/admin/tenants/cli-1").json()
    assert (after["name"], after["labels"]) == (None, {})


def test_among_a_hundred_thousand_tenants_the_label_is_found_by_its_index(
    postgres, database_url, broker, admin
):
    """A page of the labelled and a page of all cost no look at each tenant."""
    sql(
        postgres,
        database_url,
        "INSERT INTO tenants (id, labels) SELECT 'many-' || n, "
        'CASE WHEN n % 1000 = 0 THEN \'{"rare": "yes", "all": "yes"}\' '
        'ELSE \'{"all": "yes"}\' END::jsonb FROM generate_series(1, 100000) n',
    )
    sql(postgres, database_url, "ANALYZE tenants")
    statement = str(
        tenants.LISTINGS[None, True, False]
        .bindparams(
            after_tenant="",
            after_client="",
            client=None,
            labels='{"rare": "yes"}',
            limit=101,
        )
        .compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})
    )
    plan = sql(postgres, database_url, f"EXPLAIN {statement}")
    assert "tenants_labels" in plan, plan
    assert "Seq Scan on tenants" not in plan, plan
    began = time.monotonic()
    assert len(ids(admin.get("/admin/tenants?label=rare=yes&limit=100"))) == 100
    seconds = time.monotonic() - began
    assert seconds < 1, f"{seconds:.3f} s for a page of the labelled"
    assert ids(admin.get("/admin/tenants?label=rare=yes&label=all=yes&limit=1")) == ["many-1000"]


def test_what_has_all_labels_is_told_page_by_page_in_order(database_url):
    """Through the storage module, as the command line reads it."""

    async def read() -> list[str]:
        database = Database(database_url)
        try:
            rows = await database.once(
                lambda c: tenants.list_after(
                    c,
                    after="many-5000",
                    status=GrantStatus.DISCONNECTED,
                    labels={"rare": "yes"},
                    limit=3,
                )
            )
        finally:
            await database.aclose()
        return [row.tenant for row in rows]

    assert asyncio.run(read()) == ["many-50000", "many-51000", "many-52000"]
