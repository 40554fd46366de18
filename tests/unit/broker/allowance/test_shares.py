"""Max-min fairness, by its definition."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from ignition_broker.broker.allowance.shares import Claim, shares

NEAR = 1e-6


@st.composite
def claims(draw) -> Claim:
    floor = draw(st.floats(0, 50))
    demand = draw(st.one_of(st.floats(0, 500), st.just(math.inf)))
    return Claim(draw(st.integers(1, 9)), demand, floor)


@st.composite
def cases(draw) -> tuple[float, list[Claim]]:
    return draw(st.floats(0, 2000)), draw(st.lists(claims(), min_size=1, max_size=12))


def test_what_all_want_they_get():
    assert shares(100, [Claim(1, 30), Claim(1, 70)]) == [30, 70]


def test_a_bulk_reader_gets_what_small_callers_leave():
    assert shares(100, [Claim(1, math.inf), Claim(1, 10), Claim(1, 5)]) == [85, 10, 5]


def test_large_demands_share_by_weight():
    assert shares(90, [Claim(2, math.inf), Claim(1, math.inf)]) == [60, 30]


def test_what_is_reserved_or_was_taken_is_nobody_elses():
    assert shares(100, [Claim(1, math.inf), Claim(1, 80, 80)]) == [20, 80]


def test_floors_that_are_more_than_there_is_stay():
    assert shares(10, [Claim(1, 20, 8), Claim(1, 20, 8)]) == [8, 8]


@given(cases())
def test_nobody_gets_more_than_it_wants_or_less_than_its_floor(case):
    total, asked = case
    for claim, share in zip(asked, shares(total, asked), strict=True):
        assert claim.floor - NEAR <= share <= max(claim.floor, claim.demand) + NEAR


@given(cases())
def test_nothing_is_left_while_somebody_wants_more_and_no_more_is_given_than_there_is(case):
    total, asked = case
    given_out = sum(shares(total, asked))
    floors = sum(claim.floor for claim in asked)
    wanted = sum(max(claim.floor, claim.demand) for claim in asked)
    expected = max(floors, min(total, wanted))
    assert math.isclose(given_out, expected, rel_tol=1e-9, abs_tol=NEAR)


@given(cases())
def test_whoever_wants_more_has_no_less_by_weight_than_anybody_above_its_floor(case):
    """The definition: a share can only grow at the cost of one that is no larger."""
    total, asked = case
    if sum(claim.floor for claim in asked) > total:
        return
    found = list(zip(asked, shares(total, asked), strict=True))
    for claim, share in found:
        if share < claim.demand - NEAR:
            for other, others_share in found:
                if others_share > other.floor + NEAR:
                    assert share / claim.weight >= others_share / other.weight - NEAR


@given(cases(), st.randoms())
def test_the_order_of_the_claims_does_not_matter(case, random):
    total, asked = case
    order = list(range(len(asked)))
    random.shuffle(order)
    mixed = shares(total, [asked[number] for number in order])
    straight = shares(total, asked)
    for place, number in enumerate(order):
        assert math.isclose(mixed[place], straight[number], rel_tol=1e-9, abs_tol=NEAR)
