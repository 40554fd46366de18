from __future__ import annotations

import pytest
from tests.unit.values import NOW, make_grant, make_token

from ignition_broker.broker.grants.token_requirements import (
    EARLY_RENEWALS_AT_ONCE,
    WantedToken,
    is_early,
    pause_before_asking,
    pause_between_early_renewals,
)


def test_a_newer_version_meets_any_want():
    want = WantedToken(1, min_ttl_seconds=10**6, is_urgent=True)
    assert not want.is_met_by(make_token(version=1), NOW)
    assert want.is_met_by(make_token(version=2, lifetime=1), NOW)
    assert not want.is_met_by(make_token(version=2, lifetime=0), NOW)


def test_a_newer_token_that_was_long_on_its_way_is_no_token_that_lives_as_asked():
    want = WantedToken(1, min_ttl_seconds=2)
    assert not want.is_met_by(make_token(version=2, lifetime=6, age=5.5), NOW)
    assert want.is_met_by(make_token(version=2, lifetime=6, age=3.5), NOW)
    # Ignition is slow, so its tokens can never live as long as asked.
    assert WantedToken(1, min_ttl_seconds=5.9).is_met_by(
        make_token(version=2, lifetime=6, age=1), NOW
    )


def test_the_rejected_token_does_not_meet_the_want_of_whoever_saw_it_rejected():
    token = make_token()
    assert not WantedToken(1, rejected_sha256=token.sha256).is_met_by(token, NOW)
    assert WantedToken(1, rejected_sha256="0" * 64).is_met_by(token, NOW)


@pytest.mark.parametrize(
    ("lifetime", "age", "waits"),
    [
        (3600, 0, 3540),
        (3600, 3539, 1),
        (3600, 3541, None),
        (36000, 35939, 1),
        (60, 58, 1),
        (60, 60, None),
        (60, 70, None),
    ],
)
def test_after_a_lost_answer_a_live_token_is_served_nearly_to_its_end(lifetime, age, waits):
    token = make_token(lifetime=lifetime, age=age)
    grant = make_grant(token, is_uncertain=True, failures=1, retry_in_seconds=lifetime - age)
    pause = pause_before_asking(grant, token, WantedToken(1, min_ttl_seconds=60), NOW)
    assert (pause and pause.seconds) == (waits and pytest.approx(waits))


def test_after_a_lost_answer_who_saw_the_token_rejected_need_not_wait():
    token = make_token(lifetime=3600)
    grant = make_grant(token, is_uncertain=True, failures=1, retry_in_seconds=3600)
    want = WantedToken(1, rejected_sha256=token.sha256)
    assert pause_before_asking(grant, token, want, NOW) is None


def test_a_second_lost_answer_makes_everybody_wait():
    token = make_token(lifetime=3600)
    grant = make_grant(token, is_uncertain=True, failures=2, retry_in_seconds=3)
    want = WantedToken(1, rejected_sha256=token.sha256)
    assert pause_before_asking(grant, token, want, NOW).seconds == 3


def test_a_failure_is_waited_out_and_named():
    token = make_token(age=100)
    grant = make_grant(token, failures=1, retry_in_seconds=2, last_error="status 503")
    pause = pause_before_asking(grant, token, WantedToken(1), NOW)
    assert (pause.reason, pause.seconds) == ("status 503", 2)
    assert pause_before_asking(make_grant(token), token, WantedToken(1), NOW) is None


@pytest.mark.parametrize(("age", "expected"), [(0, True), (49, True), (50, False), (99, False)])
def test_a_renewal_is_early_while_more_than_half_of_the_tokens_life_is_left(age, expected):
    token = make_token(lifetime=100, age=age)
    rejected = WantedToken(1, rejected_sha256=token.sha256, on_callers_word=True)
    assert is_early(token, rejected, NOW) is expected
    assert (
        is_early(token, WantedToken(1, min_ttl_seconds=99, on_callers_word=True), NOW) is expected
    )
    assert not is_early(token, WantedToken(1, is_urgent=True), NOW), "an admin asked by hand"
    assert not is_early(token, WantedToken(1, rejected_sha256=token.sha256), NOW), (
        "the proxy saw it"
    )


def early_pauses(lifetime: float, ago: float | None = 0.0) -> list[float]:
    """After each number of early renewals so far, from none."""
    token = make_token(lifetime=lifetime)
    grants = [
        make_grant(token, early_renewals=n, refreshed_seconds_ago=ago)
        for n in range(EARLY_RENEWALS_AT_ONCE + 9)
    ]
    pauses = [pause_between_early_renewals(grant, token) for grant in grants]
    return [pause.seconds if pause else 0 for pause in pauses]


def test_after_the_first_few_the_pause_between_early_renewals_doubles_to_a_minute():
    assert early_pauses(3600) == [0] * EARLY_RENEWALS_AT_ONCE + [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_pause_between_early_renewals_is_no_more_than_a_tenth_of_a_life():
    assert early_pauses(60)[-1] == 6


def test_the_pause_between_early_renewals_counts_from_the_last_and_is_forgotten():
    assert early_pauses(3600, ago=50.0)[-1] == 10
    assert not any(early_pauses(3600, ago=60.0))
    assert not any(early_pauses(3600, ago=None)), "no refresh since it was connected"
