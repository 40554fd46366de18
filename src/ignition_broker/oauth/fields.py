"""Reads single fields of a token endpoint's answer, as providers really send them. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ignition_broker.oauth.tokens import ENDLESS_LIFETIME_SECONDS, LONGEST_LIFETIME_SECONDS
from ignition_broker.printable import printable

_LONGEST_DESCRIPTION = 300


def one_text(value: object) -> str | None:
    """A string, also as the only element of a list; None for anything else."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) else None


def scope_of(scope: object) -> str | None:
    """A string by RFC 6749 section 3.3; some providers send a list."""
    if isinstance(scope, list):
        scope = " ".join(part for part in scope if isinstance(part, str))
    return _printable(scope, longest=10_000) if isinstance(scope, str) else None


def error_code(fields: Mapping[str, object], status: int) -> str:
    """The error code, empty if there is none. Some providers put it into an object or a list."""
    named = fields.get("error")
    candidates: list[object] = [named]
    if isinstance(named, list):
        named, *_rest = named or [None]
        candidates = [named]
    if isinstance(named, Mapping):
        candidates = [named.get(name) for name in ("error", "code", "type")]
    if named or not 200 <= status < 300:
        candidates += [fields.get("error_code"), fields.get("code")]
    texts = (_printable(candidate).strip() for candidate in candidates)
    return next(filter(None, texts), "")


def error_description(fields: Mapping[str, object]) -> str:
    """The text that explains the error, empty if there is none."""
    described: object = fields.get("error_description") or fields.get("message")
    error = fields.get("error")
    if not described and isinstance(error, Mapping):
        described = error.get("message") or error.get("error_description")
    return _printable(described)


def refresh_lifetime_seconds(fields: Mapping[str, object]) -> int | None:
    """When the refresh token expires, under the names that providers use. 0 means never (Keycloak's
    offline tokens)."""
    for name in ("refresh_token_expires_in", "x_refresh_token_expires_in", "refresh_expires_in"):
        lifetime = lifetime_seconds(fields.get(name), longest=ENDLESS_LIFETIME_SECONDS)
        if lifetime:
            return lifetime
    return None


def lifetime_seconds(expires_in: object, longest: int = LONGEST_LIFETIME_SECONDS) -> int | None:
    """The value of ``expires_in``, rounded down and at most ``longest``.

    None if it is missing or not a number, 0 if it is negative. A number in a string is accepted.
    """
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float | str):
        return None
    try:
        seconds = float(expires_in)
    except (ValueError, OverflowError):
        huge = isinstance(expires_in, int) and expires_in > 0
        return longest if huge else None
    if math.isnan(seconds):
        return None
    return int(min(max(seconds, 0.0), float(longest)))


def is_header_safe(token: str) -> bool:
    """Visible ASCII, so that it can go out in an Authorization header (RFC 6750 section 2.1)."""
    return bool(token) and token.isascii() and all("!" <= character <= "~" for character in token)


def _printable(text: object, longest: int = _LONGEST_DESCRIPTION) -> str:
    """The printable characters alone: others can't be stored in the database, or shown on a
    page."""
    if not isinstance(text, str):
        return ""
    return printable(text, longest)
