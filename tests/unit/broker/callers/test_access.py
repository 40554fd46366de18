"""Who is accepted while the cache is not current and the address is over its limit."""

from __future__ import annotations

import pytest
from tests.unit.values import ManualClock

from ignition_broker.broker.callers.access import Access
from ignition_broker.broker.callers.api_keys import api_key_hash
from ignition_broker.broker.callers.failed_attempts import FailedAttempts
from ignition_broker.broker.callers.workload_identity import WorkloadIdentities
from ignition_broker.broker.change_feed import ChangeFeed
from ignition_broker.broker.errors import TooManyAttempts, Unauthenticated
from ignition_broker.model import Caller, Scope

HERE = "192.0.2.1"


class OneKey:
    """A database with one key, that counts its look-ups."""

    def __init__(self, key: str) -> None:
        self.caller: Caller | None = Caller(
            "mine", frozenset({Scope.TOKEN}), ("*",), None, api_key_hash(key)
        )
        self.asked = 0

    async def once(self, _work: object) -> Caller | None:
        self.asked += 1
        return self.caller


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def database() -> OneKey:
    return OneKey("ibk_mine")


@pytest.fixture
def access(database, clock) -> Access:
    """Deaf: no change is ever heard of."""
    return Access(
        database,
        ChangeFeed(clock),
        clock,
        FailedAttempts(clock, limit=3),
        WorkloadIdentities((), clock),
        admin_key="x" * 32,
    )


async def exhaust(access: Access, database: OneKey) -> None:
    caller, database.caller = database.caller, None
    for number in range(3):
        with pytest.raises(Unauthenticated):
            await access.authenticate(f"ibk_guess-{number}".encode(), HERE)
    database.caller = caller


async def test_a_key_that_was_good_before_is_let_through_where_memory_counts_no_more(
    access, database
):
    await access.authenticate(b"ibk_mine", HERE)
    await exhaust(access, database)
    assert access.from_memory(b"ibk_mine") is None
    assert (await access.authenticate(b"ibk_mine", HERE)).name == "mine"
    with pytest.raises(TooManyAttempts):
        await access.authenticate(b"ibk_another", HERE)


async def test_the_admin_key_is_let_through_and_may_have_two_dots(database, clock):
    key = "an.admin.key-of-32-characters-or-more"
    access = Access(
        database,
        ChangeFeed(clock),
        clock,
        FailedAttempts(clock, limit=3),
        WorkloadIdentities((), clock),
        admin_key=key,
    )
    await exhaust(access, database)
    assert (await access.authenticate(key.encode(), HERE)).may(Scope.ADMIN)


async def test_a_refused_key_is_looked_up_once_a_minute_however_often_it_is_sent(
    access, database, clock
):
    database.caller = None
    for _ in range(100):
        with pytest.raises(Unauthenticated):
            await access.authenticate(b"ibk_left-over", HERE)
    assert database.asked == 1
    clock.at += 60
    with pytest.raises(Unauthenticated):
        await access.authenticate(b"ibk_left-over", HERE)
    assert database.asked == 2


async def test_forged_tokens_count_as_attempts_and_ask_no_database(access, database):
    for number in range(3):
        with pytest.raises(Unauthenticated):
            await access.authenticate(f"a.b.{number}".encode(), HERE)
    with pytest.raises(TooManyAttempts):
        await access.authenticate(b"a.b.c", HERE)
    assert database.asked == 0
