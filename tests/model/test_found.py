"""What the model has found in the refresh, step by step: it stays mended, and where the mend is
taken out it is found again."""

from __future__ import annotations

import pytest

from tests.model import faults, moves, mutations
from tests.model.mutations import Mutation
from tests.model.plans import Plan, carry_out
from tests.model.promises import GONE, LIVES, NOT_REFUSED, SPARED, USED_ONCE
from tests.model.steps import Step
from tests.model.world import Broken

WORN_SECONDS = 30.0
MUCH = moves.NEARLY_A_LIFETIME_SECONDS


def plan(*steps: Step) -> Plan:
    return Plan(0, replicas=2, token_age_seconds=WORN_SECONDS, has_background=False, steps=[*steps])


def step(move, *arguments: object) -> Step:
    return Step(move, arguments)


LATE_STATEMENT = plan(
    step(moves.ask, 0, MUCH),
    step(faults.ignition_answers, 503),
    step(faults.delay, ("record", False), 6.5),
    step(moves.advance, 5.4),
    step(moves.urge, 0),
    step(moves.urge, 1),
    step(moves.advance, 3.0),
)
LOST_BETWEEN_READ_AND_CLAIM = plan(
    step(moves.ask, 0, MUCH),
    step(faults.delay, ("claim", False), 1.2),
    step(moves.ask, 1, MUCH),
    step(moves.proceed, 1),
    step(moves.proceed, 1),
    step(faults.lose, False),
    step(moves.advance, 3.0),
)
HEARD_BEFORE_THE_STORES_ANSWER = plan(
    step(moves.ask, 0, MUCH),
    step(moves.disconnect, 1, ("store", True)),
    step(moves.advance, 3.0),
    step(moves.ask, 0, 0.0),
)
JOINED_A_LATE_READ = plan(
    step(moves.ask, 0, 0.0),
    *[step(moves.disconnect, 1, ("read", True))] * 4,
    step(moves.advance, 1.3),
    step(moves.ask, 0, 0.0),
)
REJECTED_AND_NOT_YET_HEARD_OF = Plan(
    0,
    replicas=2,
    token_age_seconds=39.5,
    has_background=False,
    steps=[
        step(moves.ask, 1, 0.0),
        step(moves.ask, 0, MUCH),
        step(moves.advance, 1.6),
        step(faults.deafen, 1, 4.0),
        step(moves.advance, 0.65),
        step(moves.reject, 1),
    ],
)
JOINED_ONE_WHO_ASKED_FOR_MORE = plan(
    step(faults.cut_off, ("use", True), 8.0),
    step(moves.advance, 0.6),
    step(faults.restart_postgres, ("claim", False), 8.0),
    step(faults.postgres_returns),
    step(faults.cut_off, ("store", False), 1.0),
    step(faults.restart_postgres, ("claim", True), 8.0),
    step(faults.postgres_returns),
    step(moves.ask, 1, 0.0),
    step(faults.cut_off, ("use", True), 8.0),
    step(moves.advance, 7.0),
)
LEASE_RAN_OUT_UNDER_AN_OWN_REQUEST = plan(
    step(moves.ask, 0, MUCH),
    step(faults.answer_late, 9.5),
    step(faults.stop, ("use", True), 7.0),
    step(moves.advance, 7.0),
    step(faults.delay, ("extend", False), 4.5),
    step(moves.ask, 0, MUCH),
    step(moves.advance, 3.0),
)
FOUND = {
    "what this process has out is not sent again though its lease ran out": (
        LEASE_RAN_OUT_UNDER_AN_OWN_REQUEST,
        mutations.an_own_request_is_forgotten_with_its_lease,
        USED_ONCE,
    ),
    "a statement that arrives late does not end a later lease": (
        LATE_STATEMENT,
        mutations.one_name_for_all_leases,
        USED_ONCE,
    ),
    "an answer lost between the read and the claim is taken into account": (
        LOST_BETWEEN_READ_AND_CLAIM,
        mutations.claim_that_hides_a_lost_answer,
        SPARED,
    ),
    "a disconnect heard before the store's answer is not forgotten": (
        HEARD_BEFORE_THE_STORES_ANSWER,
        mutations.memory_of_what_was_read_before_a_change,
        GONE,
    ),
    "a read from before a disconnect serves nobody who comes later": (
        JOINED_A_LATE_READ,
        mutations.late_answers_are_believed,
        GONE,
    ),
    "whoever saw a newer token rejected does not get it again": (
        REJECTED_AND_NOT_YET_HEARD_OF,
        mutations.memory_is_thought_newer_than_callers,
        LIVES,
    ),
    "who asks for little is not refused with one who asked for more": (
        JOINED_ONE_WHO_ASKED_FOR_MORE,
        mutations.a_refusal_binds_whoever_joined,
        NOT_REFUSED,
    ),
}


@pytest.mark.parametrize(("found", "mend_taken_out", "promise"), FOUND.values(), ids=FOUND)
def test_bugs_found_by_the_model_stay_fixed(
    found: Plan, mend_taken_out: Mutation, promise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    carry_out(found)
    mend_taken_out(monkeypatch)
    with pytest.raises(Broken) as broken:
        carry_out(found)
    assert broken.value.promise == promise
