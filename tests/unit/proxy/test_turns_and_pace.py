"""Who gets a tenant's next place, and who is so slow as to lose one."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.values import ManualClock

from ignition_broker.broker.errors import Unavailable
from ignition_broker.proxy.caller_disconnects import Departures
from ignition_broker.proxy.caller_pace import LEAST_BYTES_PER_SECOND, CallerTooSlow, Pace
from ignition_broker.proxy.request_body import RequestBody
from ignition_broker.proxy.tenant_concurrency import Turns

AT_ONCE = 8
SHARE = 2


@pytest.fixture
def turns() -> Turns:
    return Turns(AT_ONCE, longest_wait_seconds=0.05)


def taken(turns: Turns, key: str, most: int = 100) -> int:
    """How many of its calls run without waiting."""
    return next((n for n in range(most) if not turns.take_at_once("acme", key)), most)


def test_one_key_alone_may_have_all_places(turns):
    assert taken(turns, "greedy") == AT_ONCE
    assert turns.take_at_once("beta", "greedy"), "another tenant's are others"


def test_a_key_with_less_than_its_share_does_not_wait_for_the_others(turns):
    assert taken(turns, "greedy") == AT_ONCE
    assert taken(turns, "modest") == SHARE
    assert taken(turns, "greedy") == 0
    turns.give_back("acme", "modest")
    assert taken(turns, "greedy") == 0
    assert taken(turns, "modest") == 1


def test_all_keys_together_have_twice_the_places_at_most(turns):
    assert sum(taken(turns, f"key-{number}") for number in range(50)) == 2 * AT_ONCE


def test_small_lanes_keep_a_place_for_each_key():
    turns = Turns(1)
    assert taken(turns, "greedy") == 1
    assert taken(turns, "modest") == 1
    assert taken(turns, "third") == 0


async def test_a_free_place_goes_to_the_key_that_has_the_fewest(turns):
    patient = Turns(AT_ONCE)
    assert taken(patient, "greedy") == AT_ONCE
    assert taken(patient, "modest") == SHARE
    order: list[str] = []

    async def wait(key: str) -> None:
        await patient.take("acme", key)
        order.append(key)

    waits = [asyncio.create_task(wait("greedy")) for _ in range(3)]
    waits += [asyncio.create_task(wait("modest")) for _ in range(2)]
    await asyncio.sleep(0)
    for _ in range(SHARE + 5):
        patient.give_back("acme", "greedy")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await asyncio.gather(*waits)
    assert order[:2] == ["modest", "modest"]
    assert order[2:] == ["greedy"] * 3


async def test_a_line_is_its_keys_own(turns):
    assert taken(turns, "greedy") == AT_ONCE
    line = [asyncio.create_task(turns.take("acme", "greedy")) for _ in range(AT_ONCE + 1)]
    assert taken(turns, "modest") == SHARE
    beside = asyncio.create_task(turns.take("acme", "modest"))
    ends = await asyncio.gather(*line, beside, return_exceptions=True)
    assert all(isinstance(end, Unavailable) for end in ends)


async def test_nothing_is_left_of_a_lane_whose_calls_have_ended(turns):
    for key in ("a", "b"):
        await turns.take("acme", key)
    waiting = [asyncio.create_task(turns.take("acme", "a")) for _ in range(AT_ONCE + 4)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    for _ in [end for end in ends if end is None]:
        turns.give_back("acme", "a")
    for key in ("a", "b"):
        turns.give_back("acme", key)
    assert turns._lanes == {}


@pytest.mark.parametrize(
    ("seconds", "size", "times", "is_cut"),
    [
        (8, 1, 4, True),
        (8, 1, 3, False),
        (1, LEAST_BYTES_PER_SECOND // 2, 70, True),
        (1, LEAST_BYTES_PER_SECOND, 1000, False),
        (29, 1, 1, False),
        (31, 1, 1, True),
        (60, 60 * LEAST_BYTES_PER_SECOND, 20, True),
    ],
)
def test_so_much_a_caller_has_to_send(seconds, size, times, is_cut):
    clock = ManualClock()
    pace, verdicts = Pace(clock.monotonic, 30.0), []
    for _ in range(times):
        pace.waits()
        clock.at += seconds
        verdicts.append(pace.is_too_slow)
        pace.moved(size)
        assert not pace.is_too_slow, "nobody waits"
    assert any(verdicts) is is_cut


def test_a_pause_of_the_apis_is_none_of_the_callers():
    clock = ManualClock()
    pace = Pace(clock.monotonic, 30.0)
    pace.waits()
    pace.moved(1)
    clock.at += 3600
    pace.waits()
    assert not pace.is_too_slow


async def test_a_call_that_waits_for_a_slow_body_is_ended_with_a_reason():
    clock = ManualClock()
    pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def receive():
        return {"type": "http.request", "body": await pieces.get(), "more_body": True}

    body = RequestBody(receive, 1000, 0, Pace(clock.monotonic, 30.0))
    departures = Departures()
    seen = []

    async def call() -> None:
        with departures.break_off(body):
            seen.extend([chunk async for chunk in body.chunks()])

    task = asyncio.create_task(call())
    for _ in range(5):
        pieces.put_nowait(b"x")
        await asyncio.sleep(0)
        await clock.sleep(8)
    with pytest.raises(CallerTooSlow, match="500 bytes a second"):
        await asyncio.wait_for(task, 2)
    assert not task.cancelled()
