"""The fault run's short form; `make chaos` is the long one."""

from __future__ import annotations

import os

import pytest

from tests.chaos.run import is_kept, run


@pytest.mark.timeout(240)
def test_no_promise_is_broken_under_a_minute_of_faults():
    seed = int(os.environ.get("CHAOS_SEED", "7"))
    figures = run(seed, 60)
    print(figures)
    assert figures["refreshes"] > 100
    assert figures["answers"] > 1000
    assert is_kept(figures), figures
