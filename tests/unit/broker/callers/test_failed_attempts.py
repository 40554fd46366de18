"""Failed attempts per address: counted, forgotten with time, bounded."""

from __future__ import annotations

import pytest
from tests.unit.values import ManualClock

from ignition_broker.broker.callers import failed_attempts
from ignition_broker.broker.callers.failed_attempts import FailedAttempts, address_group
from ignition_broker.broker.errors import TooManyAttempts, Unauthenticated, Unavailable


def fail(tries: FailedAttempts, address: str | None, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(Unauthenticated), tries.limited(address):
            raise Unauthenticated("no")


def test_past_the_limit_an_address_waits_for_the_time_that_it_is_told():
    clock = ManualClock()
    tries = FailedAttempts(clock, limit=30)
    fail(tries, "192.0.2.1", 30)
    with pytest.raises(TooManyAttempts) as refused, tries.limited("192.0.2.1"):
        pytest.fail("it was let through")
    assert refused.value.retry_after_seconds == pytest.approx(2)
    with tries.limited("192.0.2.2"):
        pass
    clock.at += 2
    fail(tries, "192.0.2.1")
    with pytest.raises(TooManyAttempts), tries.limited("192.0.2.1"):
        pytest.fail("it was let through")


def test_successful_and_undecided_attempts_cost_nothing():
    tries = FailedAttempts(ManualClock(), limit=2)
    for _ in range(10):
        with tries.limited("192.0.2.1"):
            pass
        with pytest.raises(Unavailable), tries.limited("192.0.2.1"):
            raise Unavailable("away")
    assert len(tries) == 0


def test_many_tries_at_once_cost_two_windows_at_most():
    clock = ManualClock()
    tries = FailedAttempts(clock, limit=30)
    under_way = [tries.limited("192.0.2.1") for _ in range(1000)]
    for one in under_way:
        one.__enter__()
    for one in under_way:
        error = Unauthenticated("no")
        assert one.__exit__(Unauthenticated, error, None) is False
    clock.at += 61
    with pytest.raises(TooManyAttempts), tries.limited("192.0.2.1"):
        pytest.fail("it was let through")
    clock.at += 61
    fail(tries, "192.0.2.1")


def test_no_limit_and_no_address_are_never_held_back():
    fail(FailedAttempts(ManualClock(), limit=0), "192.0.2.1", 100)
    fail(FailedAttempts(ManualClock(), limit=1), None, 100)


def test_the_table_is_bounded(monkeypatch):
    monkeypatch.setattr(failed_attempts, "ADDRESSES_REMEMBERED", 3)
    tries = FailedAttempts(ManualClock(), limit=1)
    for number in range(10):
        fail(tries, f"192.0.2.{number}")
    assert len(tries) == 3
    with pytest.raises(TooManyAttempts), tries.limited("192.0.2.9"):
        pytest.fail("it was let through")


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_one_caller_with_many_addresses_counts_as_one(address, group):
    assert address_group(address) == group
