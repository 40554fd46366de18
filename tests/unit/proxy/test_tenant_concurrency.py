"""Which of a tenant's calls gets the next slot."""

from __future__ import annotations

import asyncio

import pytest

from ignition_broker.broker.errors import Unavailable
from ignition_broker.proxy.tenant_concurrency import TenantConcurrency

LIMIT = 8
SHARE = 2


@pytest.fixture
def concurrency() -> TenantConcurrency:
    return TenantConcurrency(LIMIT, longest_wait_seconds=0.05)


def taken(concurrency: TenantConcurrency, key: str, most: int = 100) -> int:
    """How many of its calls run without waiting."""
    return next((n for n in range(most) if not concurrency.try_acquire("acme", key)), most)


def test_one_key_alone_may_have_all_slots(concurrency):
    assert taken(concurrency, "greedy") == LIMIT
    assert concurrency.try_acquire("beta", "greedy"), "another tenant's are others"


def test_a_key_with_less_than_its_share_does_not_wait_for_the_others(concurrency):
    assert taken(concurrency, "greedy") == LIMIT
    assert taken(concurrency, "modest") == SHARE
    assert taken(concurrency, "greedy") == 0
    concurrency.release("acme", "modest")
    assert taken(concurrency, "greedy") == 0
    assert taken(concurrency, "modest") == 1


def test_all_keys_together_have_twice_the_limit_at_most(concurrency):
    assert sum(taken(concurrency, f"key-{number}") for number in range(50)) == 2 * LIMIT


def test_small_tenants_keep_a_place_for_each_key():
    concurrency = TenantConcurrency(1)
    assert taken(concurrency, "greedy") == 1
    assert taken(concurrency, "modest") == 1
    assert taken(concurrency, "third") == 0


async def test_a_free_slot_goes_to_the_key_with_the_fewest_calls(concurrency):
    patient = TenantConcurrency(LIMIT)
    assert taken(patient, "greedy") == LIMIT
    assert taken(patient, "modest") == SHARE
    order: list[str] = []

    async def wait(key: str) -> None:
        await patient.acquire("acme", key)
        order.append(key)

    waits = [asyncio.create_task(wait("greedy")) for _ in range(3)]
    waits += [asyncio.create_task(wait("modest")) for _ in range(2)]
    await asyncio.sleep(0)
    for _ in range(SHARE + 5):
        patient.release("acme", "greedy")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await asyncio.gather(*waits)
    assert order[:2] == ["modest", "modest"]
    assert order[2:] == ["greedy"] * 3


async def test_each_key_has_a_queue_of_its_own(concurrency):
    assert taken(concurrency, "greedy") == LIMIT
    line = [asyncio.create_task(concurrency.acquire("acme", "greedy")) for _ in range(LIMIT + 1)]
    assert taken(concurrency, "modest") == SHARE
    beside = asyncio.create_task(concurrency.acquire("acme", "modest"))
    ends = await asyncio.gather(*line, beside, return_exceptions=True)
    assert all(isinstance(end, Unavailable) for end in ends)


async def test_nothing_is_remembered_of_a_tenant_whose_calls_have_ended(concurrency):
    for key in ("a", "b"):
        await concurrency.acquire("acme", key)
    waiting = [asyncio.create_task(concurrency.acquire("acme", "a")) for _ in range(LIMIT + 4)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    for _ in [end for end in ends if end is None]:
        concurrency.release("acme", "a")
    for key in ("a", "b"):
        concurrency.release("acme", key)
    assert concurrency._tenants == {}
