from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from structlog.testing import capture_logs
from tests.unit.values import ManualClock

from ignition_broker.broker.audit import event_buffer
from ignition_broker.broker.audit.event_buffer import CAPACITY, EXTRA_CAPACITY_FOR_DENIALS
from ignition_broker.broker.audit.recorder import REJECTED_FLUSHES_BORNE, AuditRecorder
from ignition_broker.broker.errors import Forbidden, NotConnected, Unauthenticated, Unavailable
from ignition_broker.storage import audit
from ignition_broker.storage.errors import StorageFault, StorageUnavailable


class Postgres:
    """Stands where the database does: keeps what the two statements are given."""

    def __init__(self) -> None:
        self.events: list[dict[str, object]] = []
        self.statements: list[object] = []
        self.refusals: list[Exception] = []

    async def execute(self, statement, given) -> None:
        await asyncio.sleep(0)
        self.statements.append(statement)
        if self.refusals:
            raise self.refusals.pop(0)
        names = ("tenants", "actors", "actions", "outcomes", "request_ids", "details")
        for row in zip(*(given[name] for name in names), strict=True):
            self.events.append(dict(zip(names, row, strict=True)))

    async def single(self, work):
        return await work(self)

    once = single


@pytest.fixture
def postgres():
    return Postgres()


@pytest.fixture
def lost():
    return []


class YieldingClock(ManualClock):
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        await super().sleep(seconds)


@pytest.fixture
def clock():
    return YieldingClock()


@pytest.fixture
def audit_recorder(postgres, lost, clock):
    return AuditRecorder(postgres, clock, is_strict=False, on_lost=lost.append)


@pytest.fixture
def strict(postgres, lost, clock):
    return AuditRecorder(postgres, clock, is_strict=True, on_lost=lost.append)


async def test_calls_of_one_key_tenant_and_action_become_one_event(audit_recorder, postgres, clock):
    for number in range(3):
        assert audit_recorder.record_call("svc", "acme", "token_issue", f"id-{number}") is None
        clock.at += 0.1
    audit_recorder.record_call("svc", "beta", "token_issue", "id-b")
    assert postgres.statements == [], "nothing is written while calls are answered"
    assert await audit_recorder.flush()
    assert len(postgres.statements) == 1
    first, second = postgres.events
    assert (first["actors"], first["tenants"], first["actions"]) == ("svc", "acme", "token_issue")
    assert first["request_ids"] == "id-0"
    assert first["details"] == (
        '{"count": 3, "from": "1970-01-01T00:16:40+00:00", '
        '"to": "1970-01-01T00:16:40.300000+00:00"}'
    )
    assert second["tenants"] == "beta"
    assert await audit_recorder.flush()
    assert len(postgres.statements) == 1, "and nothing is written twice, or where nothing was"


async def test_denied_calls_become_one_event_a_route_and_outcome_and_key(audit_recorder, postgres):
    for tenant in ("a", "b", "c"):
        audit_recorder.record_denied_call(Unauthenticated("No."), "/token/{tenant}", tenant)
        audit_recorder.record_denied_call(
            Forbidden("No.", tenant=tenant, key="svc"), "/token/{tenant}", tenant
        )
        audit_recorder.record_denied_call(
            Forbidden("No.", tenant="a", key="other"), "/token/{tenant}", tenant
        )
    audit_recorder.record_denied_call(NotConnected("acme"), "/token/{tenant}", "x")
    audit_recorder.record_denied_call(
        Forbidden("No.", tenant="NO SUCH ID", key="odd"), "/proxy", "x"
    )
    await audit_recorder.flush()
    shown = [(e["actors"], e["tenants"], e["outcomes"]) for e in postgres.events]
    assert shown == [
        ("unknown", None, "unauthenticated"),
        ("svc", None, "forbidden"),
        ("other", "a", "forbidden"),
        ("odd", None, "forbidden"),
    ]
    assert '"count": 3' in postgres.events[0]["details"]
    assert '"route": "/token/{tenant}"' in postgres.events[0]["details"]


async def test_events_that_cannot_be_stored_are_kept_and_tried_again(
    audit_recorder, postgres, lost
):
    postgres.refusals = [StorageUnavailable("away")] * 2
    audit_recorder.record_call("svc", "acme", "token_issue", "id-1")
    assert not await audit_recorder.flush()
    audit_recorder.record_call("svc", "acme", "token_issue", "id-2")
    assert not await audit_recorder.flush()
    audit_recorder.record_call("svc", "acme", "token_issue", "id-3")
    assert await audit_recorder.flush()
    assert ['"count": 1' in e["details"] for e in postgres.events] == [True, False]
    assert [e["request_ids"] for e in postgres.events] == ["id-1", "id-2"]
    assert '"count": 2' in postgres.events[1]["details"]
    again = [statement is audit.APPEND_MISSING for statement in postgres.statements]
    assert again == [False, True, True, False], "a second try adds what is missing alone"
    assert lost == []


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(event_buffer, "ROOM_WAIT_SECONDS", 0.05)


def fill(audit_recorder) -> None:
    for number in range(CAPACITY):
        assert audit_recorder.record_call("svc", f"t{number}", "token_issue", "id") is None


async def test_a_window_that_fills_up_is_stored_before_its_second_is_over(postgres, lost):
    class Standing(ManualClock):
        async def sleep(self, seconds: float) -> None:
            await asyncio.Event().wait()

    audit_recorder = AuditRecorder(postgres, Standing(), is_strict=False, on_lost=lost.append)
    running = asyncio.create_task(audit_recorder.run())
    for number in range(5 * CAPACITY):
        held = audit_recorder.record_call("svc", f"t{number}", "token_issue", "id")
        if held is not None:
            await held
        elif number % 100 == 0:
            await asyncio.sleep(0)
    assert len(postgres.events) > 3 * CAPACITY
    running.cancel()
    await audit_recorder.close()
    assert (len(postgres.events), lost) == (5 * CAPACITY, [])


async def test_a_call_waits_for_room_and_is_stored(audit_recorder, postgres, lost):
    fill(audit_recorder)
    waits = [
        audit_recorder.record_call("svc", tenant, "token_issue", "id") for tenant in ("a", "b", "b")
    ]
    calls = [asyncio.create_task(call) for call in waits]
    leaving = asyncio.create_task(audit_recorder.record_call("svc", "gone", "token_issue", "id"))
    await asyncio.sleep(0)
    leaving.cancel()
    assert audit_recorder.record_call("svc", "t0", "token_issue", "id") is None, (
        "that needs no room"
    )
    assert not any(call.done() for call in calls)
    assert await audit_recorder.flush()
    await asyncio.gather(*calls)
    assert await audit_recorder.flush()
    shown = [(e["tenants"], e["details"].split(",")[0]) for e in postgres.events]
    assert shown[CAPACITY:] == [("a", '{"count": 1'), ("b", '{"count": 2')]
    assert lost == []


@pytest.mark.usefixtures("impatient")
async def test_where_no_room_is_made_calls_are_lost_and_the_next_do_not_wait(
    audit_recorder, postgres, lost, clock
):
    postgres.refusals = [StorageUnavailable("away")] * 2
    fill(audit_recorder)
    assert not await audit_recorder.flush()
    await asyncio.gather(
        *(audit_recorder.record_call("svc", f"x{n}", "token_issue", "id") for n in range(5))
    )
    assert lost == [1] * 5
    clock.at += 0.1
    assert audit_recorder.record_call("svc", "y", "token_issue", "id") is None
    assert lost == [1] * 6
    with capture_logs() as logs:
        assert not await audit_recorder.flush()
        assert await audit_recorder.flush()
    told = [line for line in logs if line["event"] == "audit_events_lost"]
    assert [(line["calls"], line["denials"], line["log_level"]) for line in told] == [
        (6, 0, "error")
    ], "one line a flush, and each loss once"
    assert audit_recorder.record_call("svc", "y", "token_issue", "id") is None
    assert await audit_recorder.flush()
    assert lost == [1] * 6, "there is room again"
    fill(audit_recorder)
    waiting = asyncio.create_task(audit_recorder.record_call("svc", "z", "token_issue", "id"))
    assert await audit_recorder.flush()
    await waiting


async def test_denied_calls_have_room_of_their_own_and_are_stored_first(
    audit_recorder, postgres, lost
):
    fill(audit_recorder)
    for number in range(EXTRA_CAPACITY_FOR_DENIALS):
        denied = Forbidden("No.", tenant="a", key=f"k{number}")
        audit_recorder.record_denied_call(denied, "/token/{tenant}", "id")
    assert lost == []
    audit_recorder.record_denied_call(
        Forbidden("No.", tenant="a", key="one more"), "/token/{tenant}", "id"
    )
    with capture_logs() as logs:
        assert await audit_recorder.flush()
    assert lost == [1]
    assert [(line["calls"], line["denials"]) for line in logs] == [(1, 1)]
    actions = [event["actions"] for event in postgres.events]
    assert actions == ["call_denied"] * EXTRA_CAPACITY_FOR_DENIALS + ["token_issue"] * CAPACITY


async def test_what_postgres_refuses_for_good_is_counted_as_lost_and_holds_nothing_up(
    audit_recorder, postgres, lost
):
    postgres.refusals = [StorageFault("NotNullViolationError")] * REJECTED_FLUSHES_BORNE
    audit_recorder.record_call("svc", "acme", "token_issue", "id-1")
    audit_recorder.record_call("svc", "acme", "token_issue", "id-2")
    for _ in range(REJECTED_FLUSHES_BORNE - 1):
        assert not await audit_recorder.flush()
    assert lost == [], "it may have been something else than these events"
    assert await audit_recorder.flush()
    assert lost == [2]
    audit_recorder.record_call("svc", "acme", "token_issue", "id-3")
    assert await audit_recorder.flush()
    assert [event["request_ids"] for event in postgres.events] == ["id-3"]


async def test_the_end_stores_the_rest_or_counts_it(audit_recorder, postgres, lost):
    postgres.refusals = [StorageUnavailable("away")]
    audit_recorder.record_call("svc", "acme", "token_issue", "id-1")
    await audit_recorder.close()
    assert ([event["request_ids"] for event in postgres.events], lost) == (["id-1"], [])
    postgres.refusals = [StorageUnavailable("away")] * 1000
    audit_recorder.record_call("svc", "acme", "token_issue", "id-2")
    audit_recorder.record_call("svc", "acme", "token_issue", "id-3")
    await audit_recorder.close()
    assert lost == [2]


async def test_the_loop_survives_unexpected_errors(audit_recorder, postgres, clock):
    postgres.refusals = [ZeroDivisionError()]
    audit_recorder.record_call("svc", "acme", "token_issue", "id-1")
    running = asyncio.create_task(audit_recorder.run())
    for _ in range(20):
        await asyncio.sleep(0)
    running.cancel()
    assert [event["request_ids"] for event in postgres.events] == ["id-1"]


async def test_with_strict_auditing_a_call_waits_for_a_statement_that_many_share(strict, postgres):
    calls = [
        strict.record_call("svc", f"t{number % 7}", "token_issue", "id") for number in range(100)
    ]
    await asyncio.gather(*calls)
    assert len(postgres.statements) <= 3
    counts = [int(event["details"].split(",")[0].split()[-1]) for event in postgres.events]
    assert sum(counts) == 100


async def test_with_strict_auditing_nobody_is_answered_before_their_call_is_stored(
    strict, postgres
):
    ended: list[tuple[int, int]] = []

    async def call(number: int) -> None:
        stored = strict.record_call(f"svc-{number}", "acme", "token_issue", str(number))
        assert stored is not None
        await stored
        assert str(number) in [event["request_ids"] for event in postgres.events]
        ended.append((number, len(postgres.statements)))

    tasks = []
    for number in range(20):
        tasks.append(asyncio.create_task(call(number)))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert len(ended) == 20
    assert all(earlier[1] <= later[1] for earlier, later in pairwise(ended))


async def test_with_strict_auditing_a_call_that_cannot_be_stored_is_refused(strict, postgres, lost):
    postgres.refusals = [StorageUnavailable("away")]
    with pytest.raises(Unavailable):
        await strict.record_call("svc", "acme", "token_issue", "id-1")
    await strict.record_call("svc", "acme", "token_issue", "id-2")
    assert [event["request_ids"] for event in postgres.events] == ["id-2"]
    assert lost == [], "nothing was given out"


async def test_with_strict_auditing_a_fault_leaves_nobody_waiting(strict, postgres):
    postgres.refusals = [ZeroDivisionError()]
    async with asyncio.timeout(1):
        with pytest.raises(Unavailable):
            await strict.record_call("svc", "acme", "token_issue", "id-1")
        await strict.record_call("svc", "acme", "token_issue", "id-2")


async def test_with_strict_auditing_a_caller_who_leaves_does_not_affect_others(strict, postgres):
    leaving = asyncio.create_task(strict.record_call("svc", "acme", "token_issue", "id-1"))
    await asyncio.sleep(0)
    staying = asyncio.create_task(strict.record_call("svc", "beta", "token_issue", "id-2"))
    await asyncio.sleep(0)
    leaving.cancel()
    await staying
    assert {event["request_ids"] for event in postgres.events} >= {"id-2"}
