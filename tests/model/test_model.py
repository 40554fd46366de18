"""The real refresh, in interleavings that are rare on a real machine.

``MODEL_EXAMPLES=20000`` makes the search long.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, given, settings

from tests.model.plans import Plan, carry_out, plans

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "1500"))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(plans())
def test_no_interleaving_of_faults_breaks_a_promise(plan: Plan) -> None:
    carry_out(plan)
