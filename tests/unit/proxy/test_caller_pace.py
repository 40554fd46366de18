"""Which callers are too slow to keep their slot."""

from __future__ import annotations

import pytest
from tests.unit.values import ManualClock

from ignition_broker.proxy.caller_pace import LEAST_BYTES_PER_SECOND, CallerPace


@pytest.mark.parametrize(
    ("seconds", "size", "times", "is_cut"),
    [
        (8, 1, 4, True),
        (8, 1, 3, False),
        (1, LEAST_BYTES_PER_SECOND // 2, 70, True),
        (1, LEAST_BYTES_PER_SECOND, 1000, False),
        (29, 1, 1, False),
        (31, 1, 1, True),
        (60, 60 * LEAST_BYTES_PER_SECOND, 20, True),
    ],
)
def test_so_much_a_caller_has_to_send(seconds, size, times, is_cut):
    clock = ManualClock()
    pace, verdicts = CallerPace(clock.monotonic, 30.0), []
    for _ in range(times):
        pace.starts_to_wait()
        clock.at += seconds
        verdicts.append(pace.is_too_slow)
        pace.moved(size)
        assert not pace.is_too_slow, "nobody waits"
    assert any(verdicts) is is_cut


def test_a_pause_of_the_apis_is_none_of_the_callers():
    clock = ManualClock()
    pace = CallerPace(clock.monotonic, 30.0)
    pace.starts_to_wait()
    pace.moved(1)
    clock.at += 3600
    pace.starts_to_wait()
    assert not pace.is_too_slow
