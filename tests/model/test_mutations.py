"""The model finds the bug when one of the refresh's safeguards is removed."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.model.mutations import CAUGHT_BY, Mutation
from tests.model.plans import Plan, carry_out, plans
from tests.model.world import Broken

MOST_EXAMPLES = 2000


@pytest.mark.parametrize("mutation", CAUGHT_BY, ids=lambda mutation: mutation.__name__)
def test_removing_a_safeguard_is_detected(
    mutation: Mutation, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch)
    examples = 0

    @settings(
        max_examples=MOST_EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(plans())
    def search(plan: Plan) -> None:
        nonlocal examples
        examples += 1
        carry_out(plan)

    with pytest.raises(Broken) as found:
        search()
    print(f"{mutation.__name__}: example {examples} breaks that {found.value.promise}")
    assert found.value.promise in CAUGHT_BY[mutation]
