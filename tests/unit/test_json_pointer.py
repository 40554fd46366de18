"""JSON pointers, by the examples of RFC 6901."""

from __future__ import annotations

import pytest

from ignition_broker.json_pointer import parse_pointer, value_at

# Section 5.
DOCUMENT = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", DOCUMENT),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
    ],
)
def test_the_examples_of_the_standard(pointer, value):
    assert value_at(DOCUMENT, parse_pointer(pointer)) == value


def test_an_escaped_tilde_before_a_one_is_no_slash():
    assert parse_pointer("/~01") == ("~1",)


@pytest.mark.parametrize("text", ["foo", "#/foo", "/~", "/a~2", "/a~"])
def test_what_is_no_pointer_is_refused(text):
    with pytest.raises(ValueError, match="JSON pointer"):
        parse_pointer(text)


@pytest.mark.parametrize(
    ("pointer", "told"),
    [
        ("/nowhere", "there is no member 'nowhere'"),
        ("/foo/2", "there is no element '2'"),
        ("/foo/-", "there is no element '-'"),
        ("/foo/01", "there is no element '01'"),
        ("/foo/x", "there is no element 'x'"),
        ("/foo/99999999999999999999", "no element"),
        ("/foo/0/x", "neither object nor array"),
    ],
)
def test_a_pointer_that_leads_nowhere_says_where_it_ends(pointer, told):
    with pytest.raises(LookupError) as caught:
        value_at(DOCUMENT, parse_pointer(pointer))
    assert told in str(caught.value.args[0])
