"""Masks whatever looks like a secret in log lines, as the last step before they are written.

Our own secrets mask themselves (`oauth.tokens.Secret`). This is for the rest: a library's text, or
an exception that quotes its argument.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping
from datetime import date, datetime
from functools import lru_cache
from typing import Any

MASK = "…"
DEEPEST = 8
SHORTEST_KNOWN = 12
"""Known secrets shorter than this are not masked, since they may be ordinary words."""

_NAMES = (
    "access_token|refresh_token|id_token|client_secret|client_assertion|code_verifier|"
    "authorization|password|secret|api_key"
)
_VALUE = r"[^\s\"'&,;)}\]<>\\]"
# How the names of headers that authenticate end: Authorization and Proxy-Authorization, Cookie,
# X-API-Key, Private-Token, X-Hub-Signature, X-Amz-Security-Token, and so on.
_WHOLE_VALUE = r"authorization|authentication-info|cookie2?"
_HEADERS = (
    rf"{_WHOLE_VALUE}|apikey|api[-_]key|dpop|"
    "-(?:key|token|jwt|secret|auth|signature|password|credentials?|session|session-id|assertion)"
)
_REST_OF_LINE = r"(?:(?!\\[rn])[^\r\n])+"
_SCHEMES = "bearer|basic|digest|negotiate|ntlm|hawk|dpop|vapid|gnap|apikey|api-key"
# Ordinary words too: what follows one of them is masked only if it looks random.
_PLAIN_SCHEMES = "token|key|secret|jwt|signature|session"

# The shapes below are tried only on lines that match this.
_HEADER = re.compile(rf"(?i){_HEADERS}")
_HEADER_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    # Quoted, as in JSON or a repr, up to the closing quote; also the pair ("name", "value").
    (
        re.compile(
            rf"(?i)((?:{_HEADERS})(?:\\*[\"'])\s*[:=,]\s*b?(?P<quote>\\*[\"']))"
            r"(?:(?!(?<!\\)(?P=quote))[^\r\n])+"
        ),
        rf"\1{MASK}",
    ),
    (
        re.compile(
            rf"(?i)((?:{_HEADERS})\s*=\s*b?(?P<quote>\\*[\"']))"
            r"(?:(?!(?<!\\)(?P=quote))[^\r\n])+"
        ),
        rf"\1{MASK}",
    ),
    # Unquoted, as on the wire: any scheme and parameters, up to the end of the line.
    (re.compile(rf"(?i)((?:{_HEADERS})\s*:\s*)(?!\s){_REST_OF_LINE}"), rf"\1{MASK}"),
    (re.compile(rf"(?i)((?:{_WHOLE_VALUE})\s*=\s*)(?![\"'\\\s]){_REST_OF_LINE}"), rf"\1{MASK}"),
    (re.compile(rf"(?i)((?:{_HEADERS})\s*=\s*)(?![\"'\\\s]){_VALUE}+"), rf"\1{MASK}"),
)

# The most specific shapes come first, so that as much of a line as possible stays readable.
_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"ibk_[A-Za-z0-9_-]{4,}"), rf"ibk_{MASK}"),
    (re.compile(rf"(?i)\b({_SCHEMES})(\s+|%20|\+)[A-Za-z0-9._~+/=-]{{6,}}"), rf"\1 {MASK}"),
    (
        re.compile(
            rf"(?i)\b({_PLAIN_SCHEMES})(\s+|%20|\+)(?=[a-z._~+/=-]{{0,64}}\d)[A-Za-z0-9._~+/=-]{{16,}}"
        ),
        rf"\1 {MASK}",
    ),
    (re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){1,4}"), MASK),
    (re.compile(r"gAAAA[A-Za-z0-9_-]{20,}={0,2}"), MASK),
    (re.compile(r"(://[^\s/:@]*:)[^\s/@]+@"), rf"\1{MASK}@"),
    (re.compile(r"(/connect/)[A-Za-z0-9_-]{8,}"), rf"\1{MASK}"),
    (
        re.compile(rf"(?i)((?:{_NAMES})[\"'\\]{{0,2}}\s*[:=]\s*[\"'\\]{{0,2}}){_VALUE}+"),
        rf"\1{MASK}",
    ),
    # Ordinary words too: masked only in a query or a form.
    (re.compile(rf"(?i)([?&](?:code|state|token)=){_VALUE}+"), rf"\1{MASK}"),
)
# Random text of unknown form: upper and lower case, and a digit unless it is very long. This spares
# class names and hexadecimal digests.
_RUN = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{22,}={0,2}")
_LONG = 40
_AUTHENTICATES = re.compile(rf"(?i).*(?:{_HEADERS}|{_NAMES})", re.DOTALL)
# Most values in a log, which no shape can match: words in lower case, and timestamps.
_PLAIN = re.compile(r"(?!.*ibk_)[a-z0-9_.-]*|\d{4}-\d\d-\d\dT[\d:.]{8,15}Z")


class Redactor:
    """A structlog processor, which must be the last before the renderer.

    ``known``: values that are masked wherever they occur, such as the secret settings.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        longest_first = sorted({each for each in known if len(each) >= SHORTEST_KNOWN}, key=len)
        self._known = longest_first[::-1]

    def __call__(
        self, _logger: Any, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        return {self.text(str(name)): self._named(name, value, 0) for name, value in event.items()}

    def text(self, text: str) -> str:
        """``text`` with everything masked that looks like a secret."""
        for value in self._known:
            text = text.replace(value, MASK)
        if _PLAIN.fullmatch(text):
            return text
        shapes = (*_HEADER_SHAPES, *_SHAPES) if _HEADER.search(text) else _SHAPES
        for shape, replacement in shapes:
            text = shape.sub(replacement, text)
        return _RUN.sub(_random, text)

    def _named(self, name: object, value: Any, depth: int) -> Any:
        """The value, masked as a whole if its name is that of a secret."""
        is_text = isinstance(value, str | bytes | list | tuple)
        return MASK if is_text and _authenticates(name) else self._masked(value, depth)

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
                    self.text(str(name)): self._named(name, each, depth + 1)
                    for name, each in value.items()
                }
            case [str() | bytes() as name, str() | bytes() as each]:
                # A header as a pair, as in ASGI and h11.
                return [self._masked(name, depth), self._named(name, each, depth)]
            case list() | tuple() | set() | frozenset():
                return [self._masked(each, depth + 1) for each in value]
            case _:
                return self.text(_shown(value))


def _authenticates(name: object) -> bool:
    return _is_secrets_name(name.decode("latin-1") if isinstance(name, bytes) else str(name))


@lru_cache(maxsize=1024)  # There are few names of fields, and one more look at each for each line.
def _is_secrets_name(text: str) -> bool:
    return any(_AUTHENTICATES.fullmatch(each) for each in (text, text.replace("_", "-")))


def _random(run: re.Match[str]) -> str:
    text = run[0]
    is_mixed = any(map(str.isupper, text)) and any(map(str.islower, text))
    return MASK if is_mixed and (len(text) >= _LONG or any(map(str.isdigit, text))) else text


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # a log line must not fail because of a value in it
        return f"<{type(value).__name__} that can't be shown: {type(error).__name__}>"
