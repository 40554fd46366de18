"""Tokens and other secrets, which mask themselves, and the answer that brings them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

ASSUMED_LIFETIME_SECONDS: Final = 3600
"""The lifetime of a token whose answer has no ``expires_in``, which RFC 6749 section 5.1 only
recommends."""

LONGEST_LIFETIME_SECONDS: Final = 365 * 86400
"""A longer ``expires_in`` is cut to this, so that dates do not overflow."""

ENDLESS_LIFETIME_SECONDS: Final = 10 * LONGEST_LIFETIME_SECONDS
"""Stands for "no known end": the lifetime of a token without ``expires_in`` and without a refresh
token. No other lifetime is as long."""


class Secret:
    """A text that only `reveal` shows, which a reviewer can search for."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
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
        """The SHA-256 of the text, in hexadecimal."""
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

    - ``lifetime_seconds``: from the moment the request was sent. 0 if the provider said zero or
      less, `ASSUMED_LIFETIME_SECONDS` if it said nothing (``lifetime_is_known`` is then False).
    - ``refresh_token``: None if the old one remains valid (section 6).
    - ``scope``: None if it is what was asked for.
    - ``flaws``: what was wrong with the answer or could not be used, without quoting it.
    - ``refresh_lifetime_seconds``: when the refresh token expires, for which no RFC has a field;
      None if the provider does not say.
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
    """A refresh token came without an access token that could be handed out.

    ``reason`` says why, without quoting the answer. ``flaws``: as in `TokenAnswer`.
    """

    refresh_token: RefreshToken
    reason: str
    flaws: tuple[str, ...] = ()
    refresh_lifetime_seconds: int | None = None
