"""How long the proxy pauses renewals after the API rejected new tokens."""

from __future__ import annotations

import pytest
from tests.unit.values import ManualClock

from ignition_broker.proxy.renewal_pauses import RenewalPauses


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def pauses(clock):
    return RenewalPauses(clock)


def refuse_new(pauses, version, tenant="acme"):
    """A call is renewed after a 401, and its replay is refused."""
    pauses.may_renew(tenant, version - 1)
    pauses.new_token_was_refused(tenant, version)


def seconds_paused(pauses, clock, version):
    start = clock.at
    while not pauses.may_renew("acme", version):
        clock.at += 0.5
    return clock.at - start


def test_the_pause_begins_at_a_second_and_doubles_to_a_minute(pauses, clock):
    lengths = []
    for version in range(1, 9):
        refuse_new(pauses, version)
        lengths.append(seconds_paused(pauses, clock, version))
    assert lengths == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_token_counts_once_however_many_calls_saw_it_refused(pauses, clock):
    for _ in range(100):
        refuse_new(pauses, 1)
    assert seconds_paused(pauses, clock, 1) == 1


def test_a_new_token_that_another_call_sees_refused_first_begins_the_pause_too(pauses, clock):
    assert pauses.may_renew("acme", 0)
    assert not pauses.may_renew("acme", 1), "though its renewal has yet to end elsewhere"
    assert seconds_paused(pauses, clock, 1) == 1


def test_a_good_answer_ends_the_pause(pauses):
    refuse_new(pauses, 1)
    assert not pauses.may_renew("acme", 1)
    pauses.token_was_accepted("acme", 1)
    assert pauses.may_renew("acme", 1)


def test_good_answers_elsewhere_do_not_let_an_endpoint_that_always_refuses_renew_without_end(
    pauses, clock
):
    version = 1
    for _ in range(6000):
        if pauses.may_renew("acme", version):
            version += 1
            refuse_new(pauses, version)
        pauses.token_was_accepted("acme", version)
        clock.at += 0.1
    assert 10 < version < 20


def test_a_renewal_that_helped_forgets_all_refusals(pauses, clock):
    for version in range(1, 9):
        refuse_new(pauses, version)
    clock.at += 60
    assert pauses.may_renew("acme", 8)
    pauses.token_was_accepted("acme", 9)
    refuse_new(pauses, 10)
    assert seconds_paused(pauses, clock, 10) == 1


def test_refusals_of_long_ago_are_forgotten(pauses, clock):
    for version in range(1, 9):
        refuse_new(pauses, version)
    clock.at += 200
    refuse_new(pauses, 9)
    assert seconds_paused(pauses, clock, 9) == 1


def test_one_tenants_pause_is_not_anothers_and_the_memory_is_bounded(clock):
    pauses = RenewalPauses(clock, most_tenants=2)
    for tenant in ("first", "second", "third"):
        refuse_new(pauses, 1, tenant)
    renewable = [
        tenant for tenant in ("second", "third", "first", "fourth") if pauses.may_renew(tenant, 1)
    ]
    assert renewable == ["first", "fourth"]
