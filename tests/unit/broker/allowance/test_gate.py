"""The gate: who passes, who waits, who is refused, and what it costs Postgres."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.broker.allowance.books import BookDatabase
from tests.unit.broker.allowance.world import caller
from tests.unit.proxy.test_forward import Answer
from tests.unit.values import ManualClock

from ignition_broker.broker.allowance.gate import AllowanceGate
from ignition_broker.broker.allowance.reports import Allowance
from ignition_broker.broker.errors import AllowanceSpent

START = 1_700_000_000.0
NO_HEADERS: list = []


class YieldingClock(ManualClock):
    """Lets others run while somebody sleeps."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        await super().sleep(seconds)


class Stand:
    def __init__(self, calls: int = 100, seconds: float = 60.0) -> None:
        self.clock = YieldingClock(START)
        self.database = BookDatabase(self.clock)
        self.allowance = Allowance(calls, seconds)
        self.gate = self.replica("one")

    def replica(self, name: str) -> AllowanceGate:
        return AllowanceGate(
            self.database, self.clock, replica=name, allowance_of=lambda _tenant: self.allowance
        )

    async def call(self, name="key", *, gate=None, wait=0.0, status=200, headers=NO_HEADERS):
        gate = gate or self.gate
        who = caller(name)
        entered = gate.try_enter("acme", who) or await gate.enter("acme", who, wait)
        assert entered is not None
        gate.answered(entered, Answer(status, list(headers)))
        return entered

    async def use(self, number: int, name="key", **more) -> None:
        for _ in range(number):
            await self.call(name, **more)
            # As long as no window is known to Ignition's headers, the first call goes alone.
            self.clock.at += 0.01


@pytest.fixture
def stand():
    return Stand()


async def test_one_key_may_use_the_whole_and_not_one_call_more(stand):
    await stand.use(100)
    with pytest.raises(AllowanceSpent) as refused:
        await stand.call()
    # The window began with the first call, and the next begins a second after its end.
    left = START + 60 - stand.clock.at
    assert left < refused.value.retry_after_seconds <= left + 1.1
    assert refused.value.reset_seconds == pytest.approx(left, abs=1)


async def test_calls_cost_two_statements_a_chunk_not_one_each(stand):
    stand.allowance = Allowance(100_000, 3600)
    await stand.use(1000)
    assert stand.database.writes <= 1000 / 200 + 3
    assert stand.database.reads == stand.database.writes


async def test_a_refused_caller_costs_no_statement_until_something_may_have_changed(stand):
    await stand.use(100)
    with pytest.raises(AllowanceSpent):
        await stand.call()
    reads = stand.database.reads
    for _ in range(50):
        with pytest.raises(AllowanceSpent):
            await stand.call()
    assert stand.database.reads == reads


async def test_the_next_window_is_there_a_second_after_the_end(stand):
    await stand.use(100)
    stand.clock.at = START + 60.5
    with pytest.raises(AllowanceSpent):
        await stand.call()
    stand.clock.at = START + 61.1
    await stand.call()


async def test_a_caller_may_queue_for_the_next_window(stand):
    await stand.use(100)
    stand.clock.at = START + 50
    await stand.call(wait=15)
    assert START + 61 <= stand.clock.at < START + 62


async def test_a_caller_that_queues_too_short_is_refused_at_the_end_of_its_wait(stand):
    await stand.use(100)
    stand.clock.at = START + 30
    with pytest.raises(AllowanceSpent):
        await stand.call(wait=10)
    assert START + 40 <= stand.clock.at < START + 41


async def test_two_replicas_never_use_more_than_there_is(stand):
    other, used = stand.replica("two"), 0
    for number in range(300):
        stand.clock.at += 0.01
        try:
            await stand.call(gate=other if number % 2 else None)
        except AllowanceSpent:
            continue
        used += 1
    assert used == 100


async def test_a_bulk_reader_leaves_a_small_caller_what_it_used_in_the_window_before(stand):
    await stand.use(20, "small")
    await stand.use(80, "bulk")
    stand.clock.at = START + 62
    for _ in range(200):
        stand.clock.at += 0.01
        try:
            await stand.call("bulk")
        except AllowanceSpent:
            break
    else:
        pytest.fail("the bulk reader got more than there is")
    await stand.use(20, "small")


async def test_a_reserve_is_kept_for_a_key_that_was_never_seen(stand):
    stand.database.reserving = [
        {"name": "nightly", "tenants": ["ac*"], "allowance_weight": 1, "allowance_reserve": 30},
        {"name": "foreign", "tenants": ["beta"], "allowance_weight": 1, "allowance_reserve": 90},
    ]
    await stand.use(70, "bulk")
    with pytest.raises(AllowanceSpent):
        await stand.call("bulk")
    await stand.use(30, "nightly")


async def test_what_was_not_sent_is_given_back(stand):
    for _ in range(300):
        entered = await stand.gate.enter("acme", caller("key"))
        stand.gate.give_back(entered)
    await stand.use(100)
    with pytest.raises(AllowanceSpent):
        await stand.call()


async def test_an_idle_replica_gives_its_chunk_back(stand):
    await stand.use(3)
    assert stand.database.spare > 0
    running = asyncio.create_task(stand.gate.run())
    for _ in range(100):
        await asyncio.sleep(0)
    running.cancel()
    assert stand.database.spare == 0


async def test_a_replica_that_stops_gives_its_chunk_back_at_once(stand):
    await stand.use(3)
    await stand.gate.close()
    assert stand.database.spare == 0
    other = stand.replica("two")
    await stand.use(97, gate=other)


async def test_another_replicas_report_in_between_only_means_another_try(stand):
    await stand.call()
    stand.database.overtaken = 3
    await stand.use(99)
    assert stand.database.overtaken == 0


async def test_calls_of_a_tenant_that_was_never_connected_are_not_counted(stand):
    stand.database.has_grant = False
    assert await stand.gate.enter("acme", caller("key")) is None
    assert stand.database.writes == 0


async def test_without_postgres_a_replica_goes_on_within_a_part_of_what_was_left(stand):
    await stand.use(20)
    stand.database.is_away = True
    used = 0
    for _ in range(200):
        try:
            await stand.call()
        except AllowanceSpent:
            break
        used += 1
        stand.clock.at += 0.01
    # The chunk that it held, and half of what was left, since there is one replica.
    assert 30 <= used <= 50


async def test_what_was_used_without_postgres_is_reported_when_it_is_back(stand):
    await stand.use(20)
    stand.database.is_away = True
    await stand.use(30)
    stand.database.is_away = False
    stand.clock.at += 2
    await stand.use(50)
    with pytest.raises(AllowanceSpent):
        await stand.call()


async def test_without_postgres_there_is_another_part_in_the_next_window(stand):
    await stand.use(90)
    stand.database.is_away = True
    stand.clock.at = START + 62
    await stand.use(40)
    with pytest.raises(AllowanceSpent):
        await stand.use(20)


async def test_calls_are_counted_by_key_and_outcome(stand):
    await stand.use(100)
    with pytest.raises(AllowanceSpent):
        await stand.call()
    assert set(stand.gate.counts.collect()) == {("key", "sent", 100), ("key", "refused", 1)}


async def test_names_beyond_the_first_two_hundred_are_counted_together(stand):
    for number in range(210):
        stand.gate.counts.of(f"jwt:{number}").sent += 1
    names = {key for key, _outcome, _number in stand.gate.counts.collect()}
    assert len(names) == 201
    assert ("(others)", "sent", 10) in set(stand.gate.counts.collect())


async def test_an_admin_sees_use_by_key_over_all_replicas(stand):
    await stand.use(5, "a")
    other = stand.replica("two")
    await stand.use(3, "a", gate=other)
    await other.close()
    await stand.use(4, "b")
    shown = await stand.gate.use("acme")
    assert {key.key: key.used for key in shown.keys} == {"a": 8, "b": 4}
    assert (shown.used, shown.used_elsewhere) == (12, 0)
    assert shown.calls == 100
    assert 0 < shown.resets_in <= 60


async def test_an_overlong_outage_ends_a_window_that_was_told(stand):
    ends = int(START) + 60
    told = [(b"x-ratelimit-limit", b"100"), (b"x-ratelimit-reset", b"%d" % ends)]
    await stand.call(headers=[*told, (b"x-ratelimit-remaining", b"99")])
    stand.database.is_away = True
    stand.clock.at = START + 61.5
    await stand.call()
