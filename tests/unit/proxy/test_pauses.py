"""How long no further token is asked for, where new ones are refused."""

from __future__ import annotations

import pytest
from tests.unit.values import ManualClock

from ignition_broker.proxy.pauses import RenewalPauses


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def pauses(clock):
    return RenewalPauses(clock)


def seconds_paused(pauses, clock, tenant="acme"):
    start = clock.at
    while pauses.is_on(tenant):
        clock.at += 0.5
    return clock.at - start


def test_the_pause_begins_at_a_second_and_doubles_to_a_minute(pauses, clock):
    lengths = []
    for version in range(8):
        pauses.new_token_was_refused("acme", f"token {version}")
        lengths.append(seconds_paused(pauses, clock))
    assert lengths == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_token_counts_once_however_many_calls_saw_it_refused(pauses, clock):
    for _ in range(100):
        pauses.new_token_was_refused("acme", "token")
    assert seconds_paused(pauses, clock) == 1


def test_a_good_answer_ends_the_pause(pauses):
    pauses.new_token_was_refused("acme", "token")
    assert pauses.is_on("acme")
    pauses.token_was_accepted("acme")
    assert not pauses.is_on("acme")


def test_good_answers_elsewhere_do_not_let_an_endpoint_that_always_refuses_renew_without_end(
    pauses, clock
):
    renewals = 0
    for call in range(6000):
        if not pauses.is_on("acme"):
            renewals += 1
            pauses.new_token_was_refused("acme", f"token {call}")
        pauses.token_was_accepted("acme")
        clock.at += 0.1
    assert renewals < 10 + 20


def test_a_renewal_that_helped_forgets_all_refusals(pauses, clock):
    for version in range(8):
        pauses.new_token_was_refused("acme", f"token {version}")
    pauses.renewal_helped("acme")
    assert not pauses.is_on("acme")
    pauses.new_token_was_refused("acme", "another")
    assert seconds_paused(pauses, clock) == 1


def test_refusals_of_long_ago_are_forgotten(pauses, clock):
    for version in range(8):
        pauses.new_token_was_refused("acme", f"token {version}")
    clock.at += 200
    pauses.new_token_was_refused("acme", "another")
    assert seconds_paused(pauses, clock) == 1


def test_one_tenants_pause_is_not_anothers_and_the_memory_is_bounded(clock):
    pauses = RenewalPauses(clock, most_tenants=2)
    for tenant in ("first", "second", "third"):
        pauses.new_token_was_refused(tenant, "token")
    assert [pauses.is_on(name) for name in ("first", "second", "third", "fourth")] == [
        False,
        True,
        True,
        False,
    ]
