"""Cursors in queries, and cursors that go round in circles."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ignition_broker.proxy.paging.cursors import CursorCycle, cursor_in, with_cursor
from ignition_broker.proxy.paging.errors import PageUnreadable


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"", b"cursor=n"),
        (b"limit=5", b"limit=5&cursor=n"),
        (b"cursor=a&limit=5", b"cursor=n&limit=5"),
        (b"a=%2f&cursor=a&b=+&&cursor=b", b"a=%2f&cursor=n&b=+&"),
        (b"%63urs%6Fr=a&x", b"cursor=n&x"),
        (b"Cursor=a&cursor[]=b&xcursor=c", b"Cursor=a&cursor[]=b&xcursor=c&cursor=n"),
        (b"cursor", b"cursor=n"),
    ],
)
def test_the_next_cursor_takes_the_place_of_the_last_one_and_all_else_stays(query, expected):
    assert with_cursor(query, "n") == expected


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_cursor_arrives_as_it_was(cursor):
    query = with_cursor(b"a=1", cursor)
    assert parse_qsl(query.decode("ascii"), keep_blank_values=True) == [
        ("a", "1"),
        ("cursor", cursor),
    ]
    assert cursor_in(query) == cursor


def test_a_cursor_that_utf_8_cannot_hold_is_refused():
    with pytest.raises(PageUnreadable, match="no Unicode text"):
        with_cursor(b"", "\ud800")


@pytest.mark.parametrize("query", [b"", b"limit=5", b"xcursor=1"])
def test_a_query_without_a_cursor_has_none(query):
    assert cursor_in(query) is None


@given(first=st.integers(0, 20), length=st.integers(1, 20))
def test_every_cycle_is_noticed_and_nothing_else_is(first, length):
    seen = [f"{number}" for number in range(first + length)]
    cycle = CursorCycle(None)
    assert not any(cycle.is_closed_by(cursor) for cursor in seen)
    repeated = (seen[first + number % length] for number in range(4 * (first + length) + 4))
    assert any(cycle.is_closed_by(cursor) for cursor in repeated)


def test_a_page_that_leads_to_itself_is_noticed_at_once():
    assert CursorCycle("a").is_closed_by("a")
    cycle = CursorCycle(None)
    followed = [cycle.is_closed_by(cursor) for cursor in ("a", "b", "c", "d", "d")]
    assert followed == [False, False, False, False, True]
