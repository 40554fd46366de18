"""What an API key may call through the proxy: an allow-list of methods and paths. Pure.

A rule is ``METHOD /path`` or ``METHOD /prefix*``. Its path is compared, byte for byte, with what
follows ``/proxy/{tenant}`` in the request as it was sent. A rule contains no '%' and no ';', so no
server behind can read differently what it allows: percent-decoding, removing path parameters and
merging slashes all leave the matched beginning unchanged. Dot segments and backslashes, at any
depth of encoding, are refused for every key (`proxy.paths`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

EXAMPLE: Final = "GET /v1/*"
MOST_RULES: Final = 100

# The characters that RFC 3986 section 3.3 allows in a path, except '%', ';', the ',' that separates
# rules and the '*' that ends one.
_RULE = re.compile(r"(\*|[A-Z][A-Z-]{0,31}) (/[A-Za-z0-9._~!$&'()+=:@/-]{0,999})(\*?)")
_RESOLVED_BY_SERVERS = re.compile(r"//|/\.{1,2}(/|$)")
_MALFORMED_ENCODING = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_DECODINGS = 4
_METHOD_OVERRIDES = {
    b"x-http-method-override": "X-HTTP-Method-Override",
    b"x-http-method": "X-HTTP-Method",
    b"x-method-override": "X-Method-Override",
}
_PATH_OVERRIDES = {b"x-original-url": "X-Original-URL", b"x-rewrite-url": "X-Rewrite-URL"}


class MalformedRule(ValueError):
    """Its text says what is wrong and gives an example."""


@dataclass(frozen=True, slots=True)
class PathRule:
    """One rule. ``method`` ``*`` is any; ``is_prefix``: every path that begins with ``path``."""

    method: str
    path: bytes
    is_prefix: bool

    @classmethod
    def parse(cls, text: str) -> PathRule:
        """The rule that ``text`` says. Raises `MalformedRule`."""
        match = _RULE.fullmatch(text)
        if match is None:
            raise MalformedRule(
                f"{text[:80]!r} is no rule; write a method in capitals, or '*', a space, and a "
                "path of plain ASCII without '%', '?', ';' and ','; a '*' may stand at its end "
                f"alone: {EXAMPLE!r}."
            )
        method, path, star = match.groups()
        if _RESOLVED_BY_SERVERS.search(path):
            raise MalformedRule(
                f"{text[:80]!r} holds '//', '.' or '..', which servers resolve; leave them out: "
                f"{EXAMPLE!r}."
            )
        return cls(method, path.encode("ascii"), bool(star))


def check_rules(texts: Sequence[str]) -> None:
    """Raises `MalformedRule` where a text is no rule, or there are none or too many."""
    # An empty list may be a mistake, and could be read as everything or as nothing.
    if not texts:
        raise MalformedRule(
            f"name at least one rule, such as {EXAMPLE!r}, or leave paths out to allow every call."
        )
    if len(texts) > MOST_RULES:
        raise MalformedRule(f"{MOST_RULES} rules at most; join some by a prefix: {EXAMPLE!r}.")
    for text in texts:
        PathRule.parse(text)


class PathRules:
    """A key's rules, compiled once. One that can't be parsed, such as a later release's, allows
    nothing."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._exact: dict[str, frozenset[bytes]] = {}
        self._prefixes: dict[str, tuple[bytes, ...]] = {}
        for rule in _readable(texts):
            if rule.is_prefix:
                self._prefixes[rule.method] = (*self._prefixes.get(rule.method, ()), rule.path)
            else:
                self._exact[rule.method] = self._exact.get(rule.method, frozenset()) | {rule.path}

    def objection(
        self, method: str, raw_path: bytes, headers: Iterable[tuple[bytes, bytes]]
    ) -> str | None:
        """Why a call is not allowed, as a text for the caller; None where it is allowed.

        Every method that the API might take the call for must be allowed.

        Args:
            raw_path: as it will be sent, without the base path and the query.
            headers: names in lower case, and values.
        """
        if not self.allows(method, raw_path):
            return "The paths of this API key do not allow this method on this path."
        if not _decodes_to_text(raw_path):
            return (
                "The paths of this API key can't be held against a path whose percent-encoding is "
                "malformed, no UTF-8, or nested too deeply."
            )
        for name, value in headers:
            # Servers behind CGI or WSGI take '_' and '-' for the same.
            override = name.replace(b"_", b"-")
            if override in _PATH_OVERRIDES:
                return f"{_PATH_OVERRIDES[override]} could get round the paths of this API key."
            if override in _METHOD_OVERRIDES:
                claimed = value.strip().upper().decode("latin-1")
                if not self.allows(claimed, raw_path):
                    return (
                        "The paths of this API key do not allow the method that "
                        f"{_METHOD_OVERRIDES[override]} names on this path."
                    )
        return None

    def allows(self, method: str, raw_path: bytes) -> bool:
        """Whether a rule allows this method on this path, whatever the headers say."""
        # HEAD is a GET without the body (RFC 9110 section 9.3.2).
        methods = (method, "*", "GET") if method == "HEAD" else (method, "*")
        return any(
            raw_path in self._exact.get(name, ())
            or raw_path.startswith(self._prefixes.get(name, ()))
            for name in methods
        )


def _readable(texts: Iterable[str]) -> Iterable[PathRule]:
    for text in texts:
        try:
            yield PathRule.parse(text)
        except MalformedRule:
            continue


def _decodes_to_text(path: bytes) -> bool:
    """Whether every decoder reads it the same way: to lenient ones, overlong UTF-8 and ``%u002e``
    are dots."""
    if _MALFORMED_ENCODING.search(path):
        return False
    for _ in range(_DECODINGS):
        decoded = unquote_to_bytes(path)
        try:
            decoded.decode("utf-8")
        except UnicodeDecodeError:
            return False
        if decoded == path:
            return True
        path = decoded
    return False
