"""JSON pointers (RFC 6901): name one value within a JSON document. Pure."""

from __future__ import annotations

import re
from typing import TypeAlias

JsonPointer: TypeAlias = tuple[str, ...]
"""The reference tokens, decoded; none: the whole document."""

_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_WRONG_ESCAPE = re.compile(r"~(?![01])")


def parse_pointer(text: str) -> JsonPointer:
    """Section 3. Raises `ValueError`, whose text follows a setting's name."""
    if text and not text.startswith("/"):
        raise ValueError("must be a JSON pointer (RFC 6901), which begins with /")
    if _WRONG_ESCAPE.search(text):
        raise ValueError("must be a JSON pointer (RFC 6901): ~ is written ~0, and / in a name ~1")
    # In this order, so that ~01 becomes ~1 and not /.
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in text.split("/")[1:])


def value_at(document: object, pointer: JsonPointer) -> object:
    """Section 4. Raises `LookupError`, which says in a few words where the pointer leads out."""
    value = document
    for token in pointer:
        match value:
            case dict() if token in value:
                value = value[token]
            case list() if _INDEX.fullmatch(token) and int(token) < len(value):
                value = value[int(token)]
            case dict():
                raise LookupError(f"there is no member {token!r}")
            case list():
                raise LookupError(f"there is no element {token!r}")
            case _:
                raise LookupError(f"{token!r} is asked of what is neither object nor array")
    return value
