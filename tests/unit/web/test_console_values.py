"""How the console writes times, addresses and details."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from ignition_broker.web.console_values import detail, from_now, iso, tenant_page, utc

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("away", "text"),
    [
        (timedelta(), "in 0 s"),
        (timedelta(seconds=59.6), "in 1 min"),
        (timedelta(seconds=-3), "3 s ago"),
        (timedelta(minutes=61), "in 1 h 1 min"),
        (timedelta(hours=2, seconds=5), "in 2 h"),
        (timedelta(days=90, hours=5, minutes=9), "in 90 d 5 h"),
        (timedelta(days=-1, seconds=-60), "1 d ago"),
    ],
)
def test_how_far_away_it_is_takes_two_units_at_most(away, text):
    assert from_now(NOW + away, NOW) == text


def test_times_are_written_in_utc_whatever_their_zone():
    there = NOW.astimezone(timezone(timedelta(hours=11)))
    assert utc(there) == "2026-01-31 08:00:00 UTC"
    assert iso(there) == "2026-01-31T08:00:00Z"


def test_the_page_of_a_grant_names_the_client_that_is_not_the_default():
    assert tenant_page("acme") == "/tenant?tenant=acme"
    assert tenant_page("acme@sandbox") == "/tenant?tenant=acme&client=sandbox"


def test_a_long_detail_is_cut():
    assert detail("short") == "short"
    assert detail(["a", 1, None]) == '["a", 1, null]'
    assert detail("x" * 1000) == "x" * 300 + "…"
