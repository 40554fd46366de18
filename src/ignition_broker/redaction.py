"""The last look at a log line: what has the shape of a secret goes out masked.

Secrets are kept out of the log where they arise (`oauth.tokens.Secret`); this is for what nobody
thought of: a library's text, an exception that quotes what it was given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping
from datetime import date, datetime
from typing import Any

MASK = "…"
DEEPEST = 8
SHORTEST_KNOWN = 12
"""A shorter one is likely a word, and would be struck out of lines that mean the word."""

_NAMES = (
    "access_token|refresh_token|id_token|client_secret|client_assertion|code_verifier|"
    "authorization|password|secret|api_key"
)
_VALUE = r"[^\s\"'&,;)}\]<>\\]"

# In order: the sure shapes first, so that what they leave of a line stays readable.
_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"ibk_[A-Za-z0-9_-]{4,}"), rf"ibk_{MASK}"),
    (re.compile(r"(?i)\b(bearer|basic)(\s+|%20|\+)[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {MASK}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){1,4}"), MASK),
    (re.compile(r"gAAAA[A-Za-z0-9_-]{20,}={0,2}"), MASK),
    (re.compile(r"(://[^\s/:@]*:)[^\s/@]+@"), rf"\1{MASK}@"),
    (re.compile(r"(/connect/)[A-Za-z0-9_-]{8,}"), rf"\1{MASK}"),
    (
        re.compile(rf"(?i)((?:{_NAMES})[\"'\\]{{0,2}}\s*[:=]\s*[\"'\\]{{0,2}}){_VALUE}+"),
        rf"\1{MASK}",
    ),
    # Words of everyday use too: only in a query or a form.
    (re.compile(rf"(?i)([?&](?:code|state|token)=){_VALUE}+"), rf"\1{MASK}"),
)
# Random text of no known form: letters of both cases, with a digit unless it is very long. Names of
# classes and hexadecimal digests are neither.
_RUN = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{22,}={0,2}")
_LONG = 40
# Most of what is logged, which none of them can match: short words in lower case, and moments.
_PLAIN = re.compile(r"(?!.*ibk_)[a-z0-9_.-]*|\d{4}-\d\d-\d\dT[\d:.]{8,15}Z")


class Redactor:
    """A processor of structlog, to be the last ahead of the renderer.

    ``known``: values that are masked wherever they stand, such as the settings that are secrets.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        longest_first = sorted({each for each in known if len(each) >= SHORTEST_KNOWN}, key=len)
        self._known = longest_first[::-1]

    def __call__(
        self, _logger: Any, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        return {self.text(str(name)): self._masked(value, 0) for name, value in event.items()}

    def text(self, text: str) -> str:
        for value in self._known:
            text = text.replace(value, MASK)
        if _PLAIN.fullmatch(text):
            return text
        for shape, replacement in _SHAPES:
            text = shape.sub(replacement, text)
        return _RUN.sub(_random, text)

    def _masked(self, value: Any, depth: int) -> Any:
        match value:
            case None | bool() | int() | float():
                return value
            case str():
                return self.text(str(value))
            case bytes():
                return self.text(value.decode("latin-1"))
            case datetime() | date():
                return value.isoformat()
            case _ if depth > DEEPEST:
                return MASK
            case Mapping():
                return {
                    self.text(str(name)): self._masked(each, depth + 1)
                    for name, each in value.items()
                }
            case list() | tuple() | set() | frozenset():
                return [self._masked(each, depth + 1) for each in value]
            case _:
                return self.text(_shown(value))


def _random(run: re.Match[str]) -> str:
    text = run[0]
    is_mixed = any(map(str.isupper, text)) and any(map(str.islower, text))
    return MASK if is_mixed and (len(text) >= _LONG or any(map(str.isdigit, text))) else text


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # a log line must not fail for what it names
        return f"<{type(value).__name__} that can't be shown: {type(error).__name__}>"
