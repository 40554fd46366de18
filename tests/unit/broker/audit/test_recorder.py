from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from structlog.testing import capture_logs
from tests.unit.values import ManualClock

from ignition_broker.broker.audit import event_buffer
from ignition_broker.broker.audit.event_buffer import LARGEST_NUMBER_HELD, ROOM_FOR_DENIALS
from ignition_broker.broker.audit.recorder import REFUSALS_BORNE, Journal
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
def journal(postgres, lost, clock):
    return Journal(postgres, clock, is_strict=False, on_lost=lost.append)


@pytest.fixture
def strict(postgres, lost, clock):
    return Journal(postgres, clock, is_strict=True, on_lost=lost.append)


async def test_calls_of_one_key_tenant_and_action_become_one_event(journal, postgres, clock):
    for number in range(3):
        assert journal.note("svc", "acme", "token_issue", f"id-{number}") is None
        clock.at += 0.1
    journal.note("svc", "beta", "token_issue", "id-b")
    assert postgres.statements == [], "nothing is written while calls are answered"
    assert await journal.flush()
    assert len(postgres.statements) == 1
    first, second = postgres.events
    assert (first["actors"], first["tenants"], first["actions"]) == ("svc", "acme", "token_issue")
    assert first["request_ids"] == "id-0"
    assert first["details"] == (
        '{"count": 3, "from": "1970-01-01T00:16:40+00:00", '
        '"to": "1970-01-01T00:16:40.300000+00:00"}'
    )
    assert second["tenants"] == "beta"
    assert await journal.flush()
    assert len(postgres.statements) == 1, "and nothing is written twice, or where nothing was"


async def test_denied_calls_become_one_event_a_route_and_outcome_and_key(journal, postgres):
    for tenant in ("a", "b", "c"):
        journal.note_denied(Unauthenticated("No."), "/token/{tenant}", tenant)
        journal.note_denied(Forbidden("No.", tenant=tenant, key="svc"), "/token/{tenant}", tenant)
        journal.note_denied(Forbidden("No.", tenant="a", key="other"), "/token/{tenant}", tenant)
    journal.note_denied(NotConnected("acme"), "/token/{tenant}", "x")
    journal.note_denied(Forbidden("No.", tenant="NO SUCH ID", key="odd"), "/proxy", "x")
    await journal.flush()
    shown = [(e["actors"], e["tenants"], e["outcomes"]) for e in postgres.events]
    assert shown == [
        ("unknown", None, "unauthenticated"),
        ("svc", None, "forbidden"),
        ("other", "a", "forbidden"),
        ("odd", None, "forbidden"),
    ]
    assert '"count": 3' in postgres.events[0]["details"]
    assert '"route": "/token/{tenant}"' in postgres.events[0]["details"]


async def test_events_that_cannot_be_stored_are_kept_and_tried_again(journal, postgres, lost):
    postgres.refusals = [StorageUnavailable("away")] * 2
    journal.note("svc", "acme", "token_issue", "id-1")
    assert not await journal.flush()
    journal.note("svc", "acme", "token_issue", "id-2")
    assert not await journal.flush()
    journal.note("svc", "acme", "token_issue", "id-3")
    assert await journal.flush()
    assert ['"count": 1' in e["details"] for e in postgres.events] == [True, False]
    assert [e["request_ids"] for e in postgres.events] == ["id-1", "id-2"]
    assert '"count": 2' in postgres.events[1]["details"]
    again = [statement is audit.APPEND_MISSING for statement in postgres.statements]
    assert again == [False, True, True, False], "a second try adds what is missing alone"
    assert lost == []


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(event_buffer, "ROOM_SECONDS", 0.05)


def fill(journal) -> None:
    for number in range(LARGEST_NUMBER_HELD):
        assert journal.note("svc", f"t{number}", "token_issue", "id") is None


async def test_a_window_that_fills_up_is_stored_before_its_second_is_over(postgres, lost):
    class Standing(ManualClock):
        async def sleep(self, seconds: float) -> None:
            await asyncio.Event().wait()

    journal = Journal(postgres, Standing(), is_strict=False, on_lost=lost.append)
    running = asyncio.create_task(journal.run())
    for number in range(5 * LARGEST_NUMBER_HELD):
        held = journal.note("svc", f"t{number}", "token_issue", "id")
        if held is not None:
            await held
        elif number % 100 == 0:
            await asyncio.sleep(0)
    assert len(postgres.events) > 3 * LARGEST_NUMBER_HELD
    running.cancel()
    await journal.close()
    assert (len(postgres.events), lost) == (5 * LARGEST_NUMBER_HELD, [])


async def test_a_call_waits_for_room_and_is_stored(journal, postgres, lost):
    fill(journal)
    waits = [journal.note("svc", tenant, "token_issue", "id") for tenant in ("a", "b", "b")]
    calls = [asyncio.create_task(call) for call in waits]
    leaving = asyncio.create_task(journal.note("svc", "gone", "token_issue", "id"))
    await asyncio.sleep(0)
    leaving.cancel()
    assert journal.note("svc", "t0", "token_issue", "id") is None, "that needs no room"
    assert not any(call.done() for call in calls)
    assert await journal.flush()
    await asyncio.gather(*calls)
    assert await journal.flush()
    shown = [(e["tenants"], e["details"].split(",")[0]) for e in postgres.events]
    assert shown[LARGEST_NUMBER_HELD:] == [("a", '{"count": 1'), ("b", '{"count": 2')]
    assert lost == []


@pytest.mark.usefixtures("impatient")
async def test_where_no_room_is_made_calls_are_lost_and_the_next_do_not_wait(
    journal, postgres, lost, clock
):
    postgres.refusals = [StorageUnavailable("away")] * 2
    fill(journal)
    assert not await journal.flush()
    await asyncio.gather(*(journal.note("svc", f"x{n}", "token_issue", "id") for n in range(5)))
    assert lost == [1] * 5
    clock.at += 0.1
    assert journal.note("svc", "y", "token_issue", "id") is None
    assert lost == [1] * 6
    with capture_logs() as logs:
        assert not await journal.flush()
        assert await journal.flush()
    told = [line for line in logs if line["event"] == "audit_events_lost"]
    assert [(line["calls"], line["denials"], line["log_level"]) for line in told] == [
        (6, 0, "error")
    ], "one line a flush, and each loss once"
    assert journal.note("svc", "y", "token_issue", "id") is None
    assert await journal.flush()
    assert lost == [1] * 6, "there is room again"
    fill(journal)
    waiting = asyncio.create_task(journal.note("svc", "z", "token_issue", "id"))
    assert await journal.flush()
    await waiting


async def test_denied_calls_have_room_of_their_own_and_are_stored_first(journal, postgres, lost):
    fill(journal)
    for number in range(ROOM_FOR_DENIALS):
        denied = Forbidden("No.", tenant="a", key=f"k{number}")
        journal.note_denied(denied, "/token/{tenant}", "id")
    assert lost == []
    journal.note_denied(Forbidden("No.", tenant="a", key="one more"), "/token/{tenant}", "id")
    with capture_logs() as logs:
        assert await journal.flush()
    assert lost == [1]
    assert [(line["calls"], line["denials"]) for line in logs] == [(1, 1)]
    actions = [event["actions"] for event in postgres.events]
    assert actions == ["call_denied"] * ROOM_FOR_DENIALS + ["token_issue"] * LARGEST_NUMBER_HELD


async def test_what_postgres_refuses_for_good_is_counted_as_lost_and_holds_nothing_up(
    journal, postgres, lost
):
    postgres.refusals = [StorageFault("NotNullViolationError")] * REFUSALS_BORNE
    journal.note("svc", "acme", "token_issue", "id-1")
    journal.note("svc", "acme", "token_issue", "id-2")
    for _ in range(REFUSALS_BORNE - 1):
        assert not await journal.flush()
    assert lost == [], "it may have been something else than these events"
    assert await journal.flush()
    assert lost == [2]
    journal.note("svc", "acme", "token_issue", "id-3")
    assert await journal.flush()
    assert [event["request_ids"] for event in postgres.events] == ["id-3"]


async def test_the_end_stores_the_rest_or_counts_it(journal, postgres, lost):
    postgres.refusals = [StorageUnavailable("away")]
    journal.note("svc", "acme", "token_issue", "id-1")
    await journal.close()
    assert ([event["request_ids"] for event in postgres.events], lost) == (["id-1"], [])
    postgres.refusals = [StorageUnavailable("away")] * 1000
    journal.note("svc", "acme", "token_issue", "id-2")
    journal.note("svc", "acme", "token_issue", "id-3")
    await journal.close()
    assert lost == [2]


async def test_the_loop_survives_unexpected_errors(journal, postgres, clock):
    postgres.refusals = [ZeroDivisionError()]
    journal.note("svc", "acme", "token_issue", "id-1")
    running = asyncio.create_task(journal.run())
    for _ in range(20):
        await asyncio.sleep(0)
    running.cancel()
    assert [event["request_ids"] for event in postgres.events] == ["id-1"]


async def test_with_strict_auditing_a_call_waits_for_a_statement_that_many_share(strict, postgres):
    calls = [strict.note("svc", f"t{number % 7}", "token_issue", "id") for number in range(100)]
    await asyncio.gather(*calls)
    assert len(postgres.statements) <= 3
    counts = [int(event["details"].split(",")[0].split()[-1]) for event in postgres.events]
    assert sum(counts) == 100


async def test_with_strict_auditing_nobody_is_answered_before_their_call_is_stored(
    strict, postgres
):
    ended: list[tuple[int, int]] = []

    async def call(number: int) -> None:
        stored = strict.note(f"svc-{number}", "acme", "token_issue", str(number))
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
        await strict.note("svc", "acme", "token_issue", "id-1")
    await strict.note("svc", "acme", "token_issue", "id-2")
    assert [event["request_ids"] for event in postgres.events] == ["id-2"]
    assert lost == [], "nothing was given out"


async def test_with_strict_auditing_a_fault_leaves_nobody_waiting(strict, postgres):
    postgres.refusals = [ZeroDivisionError()]
    async with asyncio.timeout(1):
        with pytest.raises(Unavailable):
            await strict.note("svc", "acme", "token_issue", "id-1")
        await strict.note("svc", "acme", "token_issue", "id-2")


async def test_with_strict_auditing_a_caller_who_leaves_does_not_affect_others(strict, postgres):
    leaving = asyncio.create_task(strict.note("svc", "acme", "token_issue", "id-1"))
    await asyncio.sleep(0)
    staying = asyncio.create_task(strict.note("svc", "beta", "token_issue", "id-2"))
    await asyncio.sleep(0)
    leaving.cancel()
    await staying
    assert {event["request_ids"] for event in postgres.events} >= {"id-2"}
