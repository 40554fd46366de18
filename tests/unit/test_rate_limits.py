"""How long a 429 or 503 asks to wait, in the ways that servers say it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ignition_broker.rate_limits import LONGEST_WAIT_SECONDS, as_texts, seconds_to_wait

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IN_90_SECONDS = int(NOW.timestamp()) + 90


def wait(headers: dict[str, str], status: int = 429) -> float | None:
    return seconds_to_wait(status, headers, now=NOW)


@pytest.mark.parametrize(
    "value",
    [
        "90",
        " 90 ",
        "90.0",
        "5, 90",
        str(IN_90_SECONDS),
        str(IN_90_SECONDS * 1000),
        format_datetime(NOW + timedelta(seconds=90), usegmt=True),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_seconds_a_date_or_a_time_since_1970(value, status):
    assert wait({"retry-after": value}, status) == 90


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-limit": "1000", "x-ratelimit-reset": str(IN_90_SECONDS)},
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "90"},
        {"x-rate-limit-remaining": "0", "x-rate-limit-reset": str(IN_90_SECONDS)},
        {"ratelimit-remaining": "0", "ratelimit-reset": "90"},
        {"ratelimit": '"hour";r=0;t=90'},
        {"ratelimit": '"hour"; r=0; t=90', "ratelimit-policy": '"hour"; q=1000; w=3600'},
        {"ratelimit": '"hour";r=0', "ratelimit-policy": '"hour";q=1000;w=90'},
        {"ratelimit": '"burst";r=0;t=3, "hour";r=0;t=90, "day";r=7;t=50000'},
        {"ratelimit": '"odd;r=5,\\" name";r=0;t=90'},
        {"ratelimit": "limit=1000, remaining=0, reset=90"},
        {"ratelimit": '"hour";r=0;t=90', "x-ratelimit-reset": "7"},
    ],
)
def test_a_429_says_by_its_rate_limit_when_the_window_ends(headers):
    assert wait(headers) == 90


def test_retry_after_goes_before_the_rate_limit():
    headers = {"retry-after": "7", "x-ratelimit-reset": "90", "ratelimit": '"hour";r=0;t=80'}
    assert wait(headers) == 7
    assert wait(headers | {"retry-after": "soon"}) == 80


def test_a_rate_limit_with_room_left_refused_nothing():
    assert wait({"x-ratelimit-remaining": "57", "x-ratelimit-reset": "90"}) is None
    assert wait({"ratelimit": '"hour";r=57;t=90'}) is None


def test_a_503_is_the_rate_limits_where_nothing_remains():
    assert wait({"x-ratelimit-reset": "90"}, status=503) is None
    assert wait({"x-ratelimit-reset": "90", "x-ratelimit-remaining": "0"}, status=503) == 90


def test_a_window_that_has_ended_by_this_clock_is_waited_for_a_second():
    assert wait({"x-ratelimit-reset": str(IN_90_SECONDS - 90_000)}) == 1
    assert wait({"x-ratelimit-reset": "0"}) == 1


@pytest.mark.parametrize(
    "odd",
    ["", "-5", "NaN", "inf", "1e9", "soon", "٣", "0x10", "\x00", '"', '";r=', ";;,,==", "5;5"],
)
def test_what_makes_no_sense_counts_as_absent(odd):
    for name in ("retry-after", "x-ratelimit-reset", "ratelimit", "ratelimit-policy"):
        assert wait({name: odd}) is None
    assert wait({"x-ratelimit-reset": "90", "x-ratelimit-remaining": odd}) == 90
    assert wait({"x-ratelimit-reset": "90", "ratelimit": odd, "ratelimit-policy": odd}) == 90


@pytest.mark.parametrize("name", ["retry-after", "x-ratelimit-reset"])
@pytest.mark.parametrize("huge", ["9" * 9, "9" * 20, "9" * 30, "253402300800", "86400"])
def test_nobody_waits_for_longer_than_an_hour(name, huge):
    assert wait({name: huge}) == LONGEST_WAIT_SECONDS


HEADERS = st.dictionaries(
    st.sampled_from(
        ["retry-after", "ratelimit", "ratelimit-policy", "x-ratelimit-reset", "ratelimit-remaining"]
    ),
    st.one_of(st.text(), st.text('"\\;,=rtw0159. -', max_size=60), st.integers().map(str)),
)


@given(st.sampled_from([429, 503, 500]), HEADERS)
def test_any_headers_at_all_are_a_bounded_wait_or_none(status, headers):
    seconds = wait(headers, status)
    assert seconds is None or 0 <= seconds <= LONGEST_WAIT_SECONDS


@pytest.mark.parametrize("text", ['"' * 100_000, '"\\' * 50_000, "," * 100_000, "5," * 50_000])
def test_a_long_field_costs_little(text):
    names = ("retry-after", "ratelimit", "ratelimit-policy", "x-ratelimit-remaining")
    wait(dict.fromkeys(names, text) | {"x-ratelimit-reset": "90"})


def test_raw_headers_are_joined_where_they_are_repeated():
    assert as_texts([(b"a", b"1"), (b"b", b"\xff"), (b"a", b"2")]) == {"a": "1, 2", "b": "\xff"}
