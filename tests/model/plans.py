"""An example: who calls, what happens next and what goes wrong; then the faults end."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from ignition_broker.model import GrantStatus
from tests.model import moves
from tests.model.promises import MENDS, NEVER_HANGS
from tests.model.replicas import Replica
from tests.model.scenario import Scenario
from tests.model.steps import FAULTS, ORDINARY, Step
from tests.model.world import Broken, Notice

AGES = [0.0, 30.0, 39.5, 41.0]
"""Of the token that is there at first, in seconds; it lives for 40."""
LONGEST_WAIT_SECONDS = 30.0
LONGEST_BACK_OFF_SECONDS = 35.0


LIKELIHOOD = 20
"""How many of the steps that are drawn from are of each kind of faults; some 35 are ordinary."""


@dataclass(frozen=True)
class Plan:
    """``chance``: seeds the back-offs and the spread of what falls due."""

    chance: int
    replicas: int
    token_age_seconds: float
    has_background: bool
    steps: list[Step]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Some kinds of faults each, often none or one, so that each is seen alone and with others."""
    number = draw(st.sampled_from([1, 1, 1, 2, 2, 3, 0]))
    kinds = draw(
        st.lists(st.sampled_from(list(FAULTS)), unique=True, min_size=number, max_size=number)
    )
    steps = list(ORDINARY)
    for kind in kinds:
        steps += itertools.islice(itertools.cycle(FAULTS[kind]), max(LIKELIHOOD, len(FAULTS[kind])))
    # One draw for all the steps is several times as fast as one for each.
    choices = draw(st.binary(min_size=20, max_size=60))
    return Plan(
        chance=draw(st.integers(0, 7)),
        replicas=draw(st.integers(2, 3)),
        token_age_seconds=draw(st.sampled_from(AGES)),
        has_background=draw(st.sampled_from([False, False, True])),
        steps=[steps[choice * len(steps) // 256] for choice in choices],
    )


def carry_out(plan: Plan) -> Scenario:
    """Raises `Broken` with the story of how it came to it."""
    random.seed(plan.chance)
    scenario = Scenario(
        replicas=plan.replicas,
        token_age_seconds=plan.token_age_seconds,
        has_background=plan.has_background,
    )
    try:
        for step in plan.steps:
            step.move(scenario, *step.arguments)
        _end_faults(scenario)
        _everybody_is_answered(scenario)
        _all_mends(scenario)
    except Broken as broken:
        broken.add_note("\n".join([repr(plan), *scenario.world.story]))
        raise
    finally:
        scenario.end()
    return scenario


def _end_faults(scenario: Scenario) -> None:
    world = scenario.world
    world.tell("the faults end")
    for item in world.pending:
        if not isinstance(item, Notice):
            item.due_at = min(item.due_at, world.now + 0.5)
    timed, world.timed = world.timed, []
    for replica in world.replicas:
        replica.stopped_until = 0.0
        replica.run()
    for _moment, happen in timed:
        happen()
    for number in range(len(world.replicas)):
        scenario.start(number)


def _everybody_is_answered(scenario: Scenario) -> None:
    _wait(scenario, lambda: not scenario.calls)
    if scenario.calls:
        scenario.world.breaks(NEVER_HANGS, ", ".join(map(str, scenario.calls)))
    for replica in scenario.world.replicas:
        replica.end_schedule()
    _wait_for_flights(scenario)
    scenario.promises.kept_at_the_end()


def _all_mends(scenario: Scenario) -> None:
    """Everybody gets the token that is there; when it ends, a new one."""
    scenario.world.advance(LONGEST_BACK_OFF_SECONDS)
    _wait_for_flights(scenario)
    is_living = scenario.promises.has_living_grant()
    _everybody_asks(scenario, is_living, 0.0)
    scenario.world.advance(LONGEST_BACK_OFF_SECONDS + 6)
    _everybody_asks(scenario, is_living, 20.0)
    if not is_living and scenario.promises.row.status == GrantStatus.CONNECTED:
        scenario.world.breaks(MENDS, "nobody is told that the grant is dead")


def _everybody_asks(scenario: Scenario, is_living: bool, seconds: float) -> None:
    for number in range(len(scenario.world.replicas)):
        call = moves.ask(scenario, number, seconds)
        _everybody_is_answered(scenario)
        if is_living and call is not None and call.error is not None:
            scenario.world.breaks(MENDS, str(call))


def _wait(scenario: Scenario, is_done: Callable[[], bool]) -> None:
    end = scenario.world.now + LONGEST_WAIT_SECONDS
    while scenario.world.now < end and not is_done():
        scenario.world.advance(0.5)


def _wait_for_flights(scenario: Scenario) -> None:
    replicas = scenario.world.replicas
    _wait(scenario, lambda: not any(map(_has_flights, replicas)))
    if any(map(_has_flights, replicas)):
        scenario.world.breaks(NEVER_HANGS, "a refresh does not end")


def _has_flights(replica: Replica) -> bool:
    refresher = replica.refresher
    return bool(
        refresher.flights._running
        or refresher.leases._being_given_back
        or refresher.requests.tenants()
    )
