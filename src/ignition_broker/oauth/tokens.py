"""Secrets that mask themselves, and the answer that brings them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

ASSUMED_LIFETIME_SECONDS: Final = 3600
"""For an answer that does not say (RFC 6749 section 5.1 only recommends ``expires_in``)."""

LONGEST_LIFETIME_SECONDS: Final = 365 * 86400
"""A longer ``expires_in`` is cut to this: it is past any use, and dates must not overflow."""

ENDLESS_LIFETIME_SECONDS: Final = 10 * LONGEST_LIFETIME_SECONDS
"""For a token that may never end: no ``expires_in``, and no refresh token to follow it. It is told
from all others by its length."""


class Secret:
    """Text that shows itself only through `reveal`, which a review can search for."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(f"a {type(self).__name__} is not to be pickled")

    @property
    def sha256(self) -> str:
        """Its SHA-256, hexadecimal."""
        return hashlib.sha256(self._text.encode()).hexdigest()


class AccessToken(Secret):
    __slots__ = ()


class RefreshToken(Secret):
    __slots__ = ()


class ClientSecret(Secret):
    __slots__ = ()


class AuthorizationCode(Secret):
    __slots__ = ()


class CodeVerifier(Secret):
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """A successful token response (RFC 6749 section 5.1).

    ``lifetime_seconds`` counts from the moment the request was sent; it is 0 where the provider
    said zero or less, and `ASSUMED_LIFETIME_SECONDS` where it said nothing (``lifetime_is_known``).
    ``refresh_token`` is None where the old one stays in force (section 6), ``scope`` where it is as
    asked for. ``refresh_lifetime_seconds``: after how many the refresh token lapses, where the
    provider says so, which no RFC has a field for. ``flaws`` say what was wrong with the answer, or
    could not be used of it, without its content.
    """

    access_token: AccessToken
    token_type: str
    lifetime_seconds: int
    refresh_token: RefreshToken | None
    scope: str | None
    flaws: tuple[str, ...] = ()
    lifetime_is_known: bool = True
    refresh_lifetime_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class RefreshTokenOnly:
    """A refresh token came, and no access token that could be handed out.

    ``reason`` says why, without the answer's content; ``flaws`` as in `TokenAnswer`.
    """

    refresh_token: RefreshToken
    reason: str
    flaws: tuple[str, ...] = ()
    refresh_lifetime_seconds: int | None = None
