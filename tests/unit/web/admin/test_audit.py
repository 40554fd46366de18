"""How the audit trail is paged."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.unit.web.asgi import ask, http_scope
from tests.unit.web.made_up import KEY, Access, admin_app

from ignition_broker.model import AuditEvent, RecordedEvent, Scope
from ignition_broker.web.admin import audit

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def asked(monkeypatch):
    calls = []

    async def list_audit(_database, **wanted):
        calls.append(wanted)
        event = AuditEvent("connect", "done", "key", "acme", "id-9", {"a": 1})
        return [RecordedEvent(number, AT, event) for number in (9, 8, 7)][: wanted["limit"]]

    monkeypatch.setattr(audit, "list_audit", list_audit)
    return calls


async def get(query: bytes, *scopes: Scope):
    app = admin_app(Access(*(scopes or (Scope.ADMIN,))))
    return await ask(app, http_scope("GET", "/admin/audit", query, [KEY]))


async def test_events_come_with_the_place_of_the_next_ones(asked):
    answer = await get(b"limit=2&tenant=acme&cursor=10")
    assert [event["id"] for event in answer.json["events"]] == [9, 8]
    assert answer.json["next_cursor"] == "8"
    assert answer.json["events"][0] == {
        "id": 9,
        "at": "2026-01-01T00:00:00Z",
        "tenant": "acme",
        "client": "default",
        "actor": "key",
        "action": "connect",
        "outcome": "done",
        "request_id": "id-9",
        "detail": {"a": 1},
    }
    assert asked == [{"tenant": "acme", "client": None, "before": 10, "limit": 3}]


async def test_the_last_page_has_no_cursor(asked):
    assert (await get(b"limit=3")).json["next_cursor"] is None


@pytest.mark.parametrize(
    "query", [b"cursor=x", b"cursor=-1", b"cursor=" + b"9" * 19, b"cursor=%C2%B2", b"limit=0"]
)
async def test_a_malformed_query_asks_for_nothing(asked, query):
    answer = await get(query)
    assert (answer.status, answer.code) == (422, "invalid-request")
    assert asked == []


async def test_only_an_admin_reads_it(asked):
    assert (await get(b"", Scope.TOKEN)).code == "forbidden"
    assert asked == []


async def test_events_are_of_one_client_only_beside_a_tenant(asked):
    assert (await get(b"tenant=acme&client=sandbox")).status == 200
    assert asked[-1]["client"] == "sandbox"
    assert (await get(b"client=sandbox")).code == "invalid-request"
    assert (await get(b"tenant=acme&client=nowhere")).code == "unknown-client"
    assert len(asked) == 1
