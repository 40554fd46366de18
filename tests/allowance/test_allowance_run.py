"""The run of `make allowance-run` at a small size; its promises for the real one are stricter."""

from __future__ import annotations

import pytest

from tests.allowance.run import Size, run


@pytest.mark.timeout(400)
def test_replicas_share_a_tenants_calls_though_one_is_killed():
    seen, broken = run(Size(calls=200, seconds=30, windows=1, keys=10))
    (window,) = seen["windows"]
    assert seen["throttled_by_provider"] == 0
    assert window["used"] >= 0.95
    # A small caller wants ten calls here: each of them is a tenth of its share.
    assert window["least_share"] >= 0.6
    assert not [line for line in broken if "answers" in line]


@pytest.mark.timeout(400)
def test_ignitions_headers_are_followed_where_somebody_else_uses_the_practice():
    seen, _broken = run(Size(calls=200, seconds=30, windows=1, others=50, kill=False))
    (window,) = seen["windows"]
    assert window["throttled"] <= 2
    assert window["used"] >= 0.95
    assert window["served"] < 200, "others had some of it"
