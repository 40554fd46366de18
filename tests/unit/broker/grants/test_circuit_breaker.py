from __future__ import annotations

import pytest
from tests.unit.values import ManualClock

from ignition_broker.broker.grants.circuit_breaker import (
    LONGEST_PAUSE_SECONDS,
    OPENS_AFTER,
    CircuitBreaker,
    Pause,
    Permit,
)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def breaker(clock):
    """Open."""
    breaker = CircuitBreaker(clock, probe_seconds=10)
    for n in range(OPENS_AFTER):
        assert is_permitted(breaker)
        breaker.failed(f"grant-{n}")
    return breaker


def is_permitted(breaker):
    return isinstance(breaker.permit(), Permit)


def pause(breaker):
    asked = breaker.permit()
    assert isinstance(asked, Pause)
    return asked.seconds


def test_while_open_one_request_at_a_time_tries(breaker, clock):
    assert pause(breaker) == pytest.approx(1)
    clock.at += 1
    assert is_permitted(breaker)
    assert pause(breaker) == pytest.approx(10)


def test_a_probe_that_never_ends_is_followed_by_another(breaker, clock):
    clock.at += 1
    assert is_permitted(breaker)
    clock.at += 10
    assert is_permitted(breaker)


def test_a_probe_that_did_not_go_out_makes_room_for_the_next(breaker, clock):
    clock.at += 1
    with breaker.permit():
        assert not is_permitted(breaker)
    assert is_permitted(breaker)


def test_a_probe_that_an_error_ends_makes_room_for_the_next(breaker, clock):
    clock.at += 1
    with pytest.raises(RuntimeError), breaker.permit():
        raise RuntimeError
    assert is_permitted(breaker)


def test_a_probe_makes_no_room_while_its_request_outlives_its_caller(breaker, clock):
    clock.at += 1
    with breaker.permit() as permit:
        request = permit.__enter__()
    assert not is_permitted(breaker)
    request.__exit__(None, None, None)
    assert is_permitted(breaker)


def test_a_probe_that_failed_makes_no_room_before_the_pause_is_over(breaker, clock):
    clock.at += 1
    with breaker.permit():
        breaker.failed("grant-1")
    assert pause(breaker) == pytest.approx(2)


def test_a_probe_that_ended_late_makes_no_room_beside_the_next(breaker, clock):
    clock.at += 1
    with breaker.permit():
        clock.at += 10
        assert is_permitted(breaker), "the next probe"
    assert not is_permitted(breaker)


def test_a_success_closes_it_and_failures_lengthen_the_pause_to_a_bound(breaker, clock):
    for _ in range(10):
        clock.at += LONGEST_PAUSE_SECONDS
        assert is_permitted(breaker)
        breaker.failed("grant-1")
    assert pause(breaker) == pytest.approx(LONGEST_PAUSE_SECONDS)
    clock.at += LONGEST_PAUSE_SECONDS
    assert is_permitted(breaker)
    breaker.succeeded()
    assert not breaker.is_open
    assert is_permitted(breaker)
    assert is_permitted(breaker)


def test_the_end_of_a_permit_that_was_no_probe_changes_nothing(clock):
    breaker = CircuitBreaker(clock, probe_seconds=10)
    with breaker.permit():
        for n in range(OPENS_AFTER):
            breaker.failed(f"grant-{n}")
    assert not is_permitted(breaker)
    clock.at += 1
    probe = breaker.permit()
    with breaker.permit_regardless():
        pass
    assert isinstance(probe, Permit)
    assert not is_permitted(breaker), "the probe is still out"


def test_one_grants_failures_alone_do_not_open_it(clock):
    breaker = CircuitBreaker(clock, probe_seconds=10)
    for _ in range(4 * OPENS_AFTER):
        breaker.failed("throttled", asked_seconds=3600)
        assert is_permitted(breaker)
    breaker.failed("another", asked_seconds=3600)
    assert not is_permitted(breaker)


def test_the_pause_is_no_longer_than_the_provider_asked(clock):
    breaker = CircuitBreaker(clock, probe_seconds=10)
    for n in range(4 * OPENS_AFTER):
        breaker.failed(f"grant-{n}", asked_seconds=2)
    assert pause(breaker) == pytest.approx(2)
    clock.at += 2
    assert is_permitted(breaker)


def test_a_success_forgets_who_failed(breaker):
    breaker.succeeded()
    for _ in range(OPENS_AFTER):
        breaker.failed("grant-1")
    assert not breaker.is_open
