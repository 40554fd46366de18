from __future__ import annotations

import json

import pytest

from ignition_broker.json_reading import DEEPEST, read_json


@pytest.mark.parametrize(
    "value", [None, 7, "a", [], {}, {"a": [{"b": [1, 2]}, {}]}, [[1], {"a": 2}]]
)
def test_valid_json_is_read(value):
    assert read_json(json.dumps(value)) == read_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "nul", b"\xff", '{"a": 1', "1" * 5000),
        *("[" * 100_000, "[" * 500 + "]" * 500, '{"a":' * 100_000),
        *('{"a":' * 500 + "1" + "}" * 500, '[{"a":' * 100 + "1" + "}]" * 100),
    ],
    ids=lambda text: repr(text[:6]),
)
def test_invalid_and_deeply_nested_json_raise_the_same_error(text):
    with pytest.raises(ValueError):  # noqa: PT011  # the kind is what it is about
        read_json(text)


def test_the_nesting_limit_does_not_depend_on_the_stack():
    assert read_json("[" * DEEPEST + "]" * DEEPEST)
    with pytest.raises(ValueError, match="nested"):
        read_json("[" * (DEEPEST + 1) + "1" + "]" * (DEEPEST + 1))
    assert read_json(json.dumps([[0]] * 20_000))
