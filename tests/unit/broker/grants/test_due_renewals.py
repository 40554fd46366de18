"""How fast grants that fall due are renewed, and what it does with a lease that it can't use."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from cryptography.fernet import Fernet

from ignition_broker.broker.grants.circuit_breaker import OPENS_AFTER, CircuitBreaker, Pause, Permit
from ignition_broker.broker.grants.due_renewals import (
    CATCH_UP_SECONDS,
    CONCURRENCY,
    DueRenewals,
)
from ignition_broker.broker.grants.leases import Leases
from ignition_broker.cipher import Cipher
from ignition_broker.model import SealedLease
from ignition_broker.storage.errors import StorageUnavailable


class LateClock:
    """Each sleep takes ``late_seconds`` longer than it should."""

    def __init__(self, late_seconds: float) -> None:
        self._late_seconds = late_seconds
        self.elapsed = 1000.0

    def monotonic(self) -> float:
        return self.elapsed

    async def sleep(self, seconds: float) -> None:
        self.elapsed += seconds + self._late_seconds


async def turns_in(
    seconds: float,
    clock: LateClock,
    rate: float,
    *,
    idle_before: float = 0.0,
    share_of_core: float = 0.5,
) -> int:
    nobody: Any = None
    background = DueRenewals(
        nobody,
        nobody,
        clock,  # type: ignore[arg-type]
        rate=rate,
        cpu_seconds=lambda: clock.elapsed * share_of_core,
    )
    await background._next_turn()
    clock.elapsed += idle_before
    ends_at = clock.elapsed + seconds
    turns = 0
    while clock.elapsed < ends_at:
        turns += 1
        await background._next_turn()
    return turns


async def test_a_process_that_wakes_up_a_little_late_keeps_the_rate():
    assert 399 <= await turns_in(1.0, LateClock(0.0), 400) <= 401
    assert 380 <= await turns_in(1.0, LateClock(0.002), 400) <= 401


async def test_a_process_that_is_busy_with_callers_renews_less_and_never_stops():
    assert 30 <= await turns_in(1.0, LateClock(0.005), 400) <= 60
    assert 10 <= await turns_in(1.0, LateClock(0.02), 400) <= 20
    assert 3 <= await turns_in(1.0, LateClock(2 * CATCH_UP_SECONDS), 400) <= 10


async def test_a_process_that_uses_its_whole_core_renews_two_thirds_of_what_it_may():
    assert 260 <= await turns_in(1.0, LateClock(0.0), 400, share_of_core=1.0) <= 275
    assert 260 <= await turns_in(1.0, LateClock(0.002), 400, share_of_core=0.8) <= 275
    assert 395 <= await turns_in(1.0, LateClock(0.0), 400, share_of_core=0.7) <= 401


async def test_what_was_not_asked_while_nothing_was_due_is_not_made_up_for():
    assert await turns_in(1.0, LateClock(0.0), 400, idle_before=60.0) <= 401


def test_no_more_is_claimed_than_has_its_turn_while_the_lease_is_fresh():
    nobody: Any = None
    clock: Any = LateClock(0.0)

    def most(rate: float) -> int:
        return DueRenewals(nobody, nobody, clock, rate=rate)._most_to_claim()

    assert most(0.1) == 1
    assert most(2) == 3
    assert most(400) == CONCURRENCY


class AwayDatabase:
    """Every statement fails."""

    async def single(self, _work: Any) -> Any:
        raise StorageUnavailable("away")


async def test_a_lease_that_no_key_opens_gives_the_probe_back_even_while_the_database_is_away():
    clock: Any = LateClock(0.0)
    breaker = CircuitBreaker(clock, probe_seconds=1000)
    for n in range(OPENS_AFTER):
        breaker.failed(f"grant-{n}")
    clock.elapsed += 10
    probe = breaker.permit()
    assert isinstance(probe, Permit)
    assert isinstance(breaker.permit(), Pause)
    cipher = Cipher([Fernet.generate_key().decode()])
    database: Any = AwayDatabase()
    refresher: Any = SimpleNamespace(leases=Leases(database, cipher, clock, replica="me"))
    background = DueRenewals(breaker, refresher, clock, rate=1)
    await background._renew(
        SealedLease(
            tenant="torn",
            version=1,
            owner="me",
            refresh_token=b"torn",
            scope="",
            use_before=clock.elapsed + 10,
            was_uncertain=False,
            failures=0,
            access_dies_at=0.0,
        ),
        probe,
    )
    assert isinstance(breaker.permit(), Permit), "another may be"
