"""Reads the fields of a token endpoint's answer, even a malformed one. Pure, and never raises.

A rotated refresh token exists nowhere but in this answer, so whatever can be read without guessing
is read. `oauth.answers` judges what it means.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, unquote_plus

NOT_JSON: Final = "the body is not proper JSON"
FORM_ENCODED: Final = "the body is form-encoded"
NESTED: Final = "the fields are nested"

_TOKENS = ("access_token", "refresh_token")
_CANONICAL = (
    *_TOKENS,
    "token_type",
    "expires_in",
    "scope",
    "error",
    "error_code",
    "error_description",
    "refresh_token_expires_in",
    "x_refresh_token_expires_in",
    "refresh_expires_in",
)
_NAMES = {name.replace("_", ""): name for name in _CANONICAL}
_DEEPEST = 3
_LONGEST_PREFIX = 20
_MOST_FORM_FIELDS = 100
_FORM = re.compile(r"\s*[A-Za-z][\w.-]{0,63}=")
# A name and its complete value: a string or number that was cut off does not match.
_PAIR = re.compile(
    r'"([A-Za-z][\w-]{2,63})"\s*:\s*'
    r'(?:"([^"\\]*(?:\\.[^"\\]*)*)"|(-?\d{1,300}(?:\.\d{1,300})?)(?=[\s,}\]]))',
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Reading:
    """The fields of an answer under their names in RFC 6749, however the answer spells them.

    ``is_whole`` is False if they were picked out of JSON that is broken or cut off. ``flaws`` say
    what was wrong with the answer, without quoting it.
    """

    fields: Mapping[str, object]
    is_whole: bool = True
    flaws: tuple[str, ...] = ()

    @property
    def says_something(self) -> bool:
        """Whether there is a token or an error."""
        return any(self.fields.get(name) for name in (*_TOKENS, "error"))


def read_fields(body: bytes) -> Reading | None:
    """The fields of the answer ``body``; None if it is neither JSON nor form-encoded."""
    text, is_proper = _text(body)
    if is_proper:
        try:
            parsed = _STRICT.decode(text)
        except (ValueError, RecursionError):
            pass
        else:
            if isinstance(parsed, dict):
                return _reading(parsed, ())
    return _read_json(text) or _read_form(text) or _read_pieces(text)


def _text(body: bytes) -> tuple[str, bool]:
    """The decoded body, and whether it was in one of JSON's encodings.

    The header's ``charset`` is ignored: what matters is ASCII, which is the same in all of them.
    """
    try:
        return body.decode(json.detect_encoding(body)).lstrip("\ufeff"), True
    except UnicodeDecodeError:
        return body.decode("latin-1"), False


def _read_json(text: str) -> Reading | None:
    text = text.strip("\ufeff\0 \t\r\n")
    if text.startswith('"'):
        # JSON within a JSON string.
        inner = _decoded(text, 0)
        text = inner.strip() if isinstance(inner, str) else text
    start = _start(text)
    parsed = None if start is None else _decoded(text, start)
    return _reading(parsed, (NOT_JSON,)) if isinstance(parsed, dict) else None


def _read_form(text: str) -> Reading | None:
    if not _FORM.match(text):
        return None
    fields: dict[str, object] = {}
    for part in text.strip().split("&")[:_MOST_FORM_FIELDS]:
        name, _, value = part.partition("=")
        name = _canonical(unquote_plus(name))
        # No token contains a blank, so a plus sign in one is meant as such.
        fields.setdefault(name, unquote(value) if name in _TOKENS else unquote_plus(value))
    reading = Reading(fields, flaws=(FORM_ENCODED,))
    return reading if reading.says_something else None


def _read_pieces(text: str) -> Reading | None:
    """The complete name-value pairs in broken JSON."""
    start = _start(text)
    if start is None:
        return None
    fields: dict[str, object] = {}
    for match in _PAIR.finditer(text, start):
        name, string, number = match.groups()
        value = float(number) if number else _decoded(f'"{string}"', 0)
        if value is not None:
            fields.setdefault(_canonical(name), value)
    reading = Reading(fields, is_whole=False, flaws=(NOT_JSON,))
    return reading if reading.says_something else None


def _start(text: str) -> int | None:
    """Where a JSON object begins. A short prefix is skipped (``)]}',`` or ``[``); words or markup
    are not, because an object after them is part of a page."""
    start = text.find("{", 0, _LONGEST_PREFIX + 1)
    is_prefix = start >= 0 and len(text[:start].split()) <= 1 and "<" not in text[:start]
    return start if is_prefix else None


def _decoded(text: str, start: int) -> object:
    """The JSON value that begins at ``start``, whatever follows it; None if there is none."""
    try:
        return _LENIENT.raw_decode(text, start)[0]
    except (ValueError, RecursionError):
        return None


def _whole_number(digits: str) -> float:
    """Python refuses to read very long numbers as integers."""
    return int(digits) if len(digits) < 300 else float(digits)


_STRICT = json.JSONDecoder(parse_int=_whole_number)
# Accepts raw control characters in strings.
_LENIENT = json.JSONDecoder(strict=False, parse_int=_whole_number)


def _reading(parsed: dict[str, object], flaws: tuple[str, ...]) -> Reading:
    top = Reading(_named(parsed), flaws=flaws)
    if top.says_something:
        return top
    for nested in _nested(parsed, 1):
        reading = Reading(_named(nested), flaws=(*flaws, NESTED))
        if reading.says_something:
            return reading
    return top


def _nested(parent: Mapping[str, object], depth: int) -> Iterator[dict[str, object]]:
    for member in parent.values():
        value = member[0] if isinstance(member, list) and len(member) == 1 else member
        if isinstance(value, dict):
            yield value
            if depth < _DEEPEST:
                yield from _nested(value, depth + 1)


def _named(parsed: Mapping[str, object]) -> dict[str, object]:
    """The members under their canonical names; the RFC's own spelling wins over others."""
    fields = {_canonical(name): value for name, value in parsed.items()}
    fields.update((name, parsed[name]) for name in _CANONICAL if name in parsed)
    return fields


def _canonical(name: str) -> str:
    return _NAMES.get(re.sub(r"[\s_-]", "", name.casefold()), name)
