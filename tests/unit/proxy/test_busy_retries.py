"""How often a caller lets a call be repeated."""

from __future__ import annotations

import pytest

from ignition_broker.proxy.busy_retries import MOST_RETRIES, retries_asked_for


@pytest.mark.parametrize(
    ("method", "asked", "retries"),
    [
        ("GET", [b"2"], 2),
        ("GET", [b"9999"], MOST_RETRIES),
        ("GET", [b"99999"], 0),
        ("GET", [], 0),
        ("GET", [b"1", b"1"], 0),
        ("GET", [b"-1"], 0),
        ("GET", [b"two"], 0),
        ("POST", [b"2"], 0),
        ("PATCH", [b"2"], 0),
        ("DELETE", [b"2"], 2),
    ],
)
def test_idempotent_calls_are_repeated_as_often_as_one_header_says(method, asked, retries):
    assert retries_asked_for(method, [(b"broker-retry", each) for each in asked]) == retries
