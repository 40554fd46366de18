"""JSON that others wrote."""

from __future__ import annotations

import json

DEEPEST = 50
"""More than any token, key set or request needs. `json.loads` itself stops somewhere below a
thousand, with an error that is no `ValueError`, and what it lets through may be too deep to be
compared or walked."""


def read_json(text: bytes | str) -> object:
    """Raises `ValueError` for what is no JSON, and for what is nested deeper than `DEEPEST`."""
    try:
        value: object = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    check_depth(value)
    return value


def check_depth(value: object) -> None:
    """Raises `ValueError` for what is nested deeper than `DEEPEST`."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            member
            for outer in level
            if isinstance(outer, dict | list)
            for member in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ValueError("it is nested too deeply")
