from __future__ import annotations

import pytest
from tests.unit.values import ManualClock

from ignition_broker.broker.grants.circuit_breaker import (
    LONGEST_PAUSE_SECONDS,
    OPENS_AFTER,
    CircuitBreaker,
)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def breaker(clock):
    """Open."""
    breaker = CircuitBreaker(clock, probe_seconds=10)
    for n in range(OPENS_AFTER):
        assert breaker.pause() is None
        breaker.failed(f"grant-{n}")
    return breaker


def test_while_open_one_request_at_a_time_tries(breaker, clock):
    assert breaker.pause().seconds == pytest.approx(1)
    clock.at += 1
    assert breaker.pause() is None
    assert breaker.pause().seconds == pytest.approx(10)


def test_a_probe_that_never_ends_is_followed_by_another(breaker, clock):
    clock.at += 1
    assert breaker.pause() is None
    clock.at += 10
    assert breaker.pause() is None


def test_a_probe_that_did_not_go_out_makes_room_for_the_next(breaker, clock):
    clock.at += 1
    assert breaker.pause() is None
    breaker.release()
    assert breaker.pause() is None


def test_a_success_closes_it_and_failures_lengthen_the_pause_to_a_bound(breaker, clock):
    for _ in range(10):
        clock.at += LONGEST_PAUSE_SECONDS
        assert breaker.pause() is None
        breaker.failed("grant-1")
    assert breaker.pause().seconds == pytest.approx(LONGEST_PAUSE_SECONDS)
    clock.at += LONGEST_PAUSE_SECONDS
    assert breaker.pause() is None
    breaker.succeeded()
    assert not breaker.is_open
    assert breaker.pause() is None
    assert breaker.pause() is None


def test_release_of_a_request_that_was_no_probe_changes_nothing(breaker):
    breaker.release()
    assert breaker.pause() is not None


def test_one_grants_failures_alone_do_not_open_it(clock):
    breaker = CircuitBreaker(clock, probe_seconds=10)
    for _ in range(4 * OPENS_AFTER):
        breaker.failed("throttled", asked_seconds=3600)
        assert breaker.pause() is None
    breaker.failed("another", asked_seconds=3600)
    assert breaker.pause() is not None


def test_the_pause_is_no_longer_than_the_provider_asked(clock):
    breaker = CircuitBreaker(clock, probe_seconds=10)
    for n in range(4 * OPENS_AFTER):
        breaker.failed(f"grant-{n}", asked_seconds=2)
    assert breaker.pause().seconds == pytest.approx(2)
    clock.at += 2
    assert breaker.pause() is None


def test_a_success_forgets_who_failed(breaker):
    breaker.succeeded()
    for _ in range(OPENS_AFTER):
        breaker.failed("grant-1")
    assert not breaker.is_open
