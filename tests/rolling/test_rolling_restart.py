"""A small rolling restart; the whole is `make rolling`."""

from __future__ import annotations

from tests.rolling.run import is_kept, run


def test_a_rolling_restart_behind_a_balancer_fails_no_call():
    figures = run(
        replicas=2, drain_seconds=2, look_seconds=0.4, rounds=[("--workers", "2")], load=3
    )
    assert is_kept(figures), figures
    assert figures["restarts"] == 2
    assert figures["calls"] > 50
