"""Events in the life of a grant: the ledger is built from them, and the journal stores them.

Tokens and codes appear only as fingerprints, so that a journal holds no secret.
"""

import hashlib
from dataclasses import dataclass

from ignition_broker.fake_ignition.practices import DEFAULT_PRACTICE


def fingerprint(secret: str) -> str:
    """Return the SHA-256 of a token or code, in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(frozen=True)
class CodeIssued:
    """The user approved; the client may redeem this code once. RFC 6749 section 4.1.2."""

    at: float
    code_sha256: str
    redirect_uri: str
    scope: str
    code_challenge: str | None
    expires_at: float
    practice: str = DEFAULT_PRACTICE


@dataclass(frozen=True)
class GrantOpened:
    """A code was redeemed (or a test seeded a grant, with no code)."""

    at: float
    grant: str
    scope: str
    code_sha256: str | None
    practice: str = DEFAULT_PRACTICE


@dataclass(frozen=True)
class AccessTokenIssued:
    """An access token was issued for a grant."""

    at: float
    grant: str
    access_token_sha256: str
    expires_at: float


@dataclass(frozen=True)
class RefreshTokenIssued:
    """A refresh token was issued for a grant; ``expires_at`` None: it has no end."""

    at: float
    grant: str
    refresh_token_sha256: str
    expires_at: float | None = None


@dataclass(frozen=True)
class RefreshTokenPresented:
    """An authenticated client showed a known refresh token, whatever came of it.

    ``answer_dropped`` and ``answer_delayed`` tell that a test provoked the trouble: the
    presentation that follows such a one is no fault of the client's. ``host``: the request's
    Host header, and behind a ``?`` the query of its token URL, if it had one. By either a test
    can tell one client process from another.
    """

    at: float
    refresh_token_sha256: str
    answer_dropped: bool
    answer_delayed: bool
    host: str = ""


@dataclass(frozen=True)
class LateAnswerEnded:
    """The last byte went out of an answer that a fault had delayed, or let drip."""

    at: float
    refresh_token_sha256: str


@dataclass(frozen=True)
class GrantRefreshed:
    """New tokens were issued for a refresh token. RFC 6749 section 6."""

    at: float
    grant: str


@dataclass(frozen=True)
class RefreshTokenSpent:
    """A refresh token was replaced; seen again, it is stolen or sent twice. RFC 9700 4.14.2."""

    at: float
    refresh_token_sha256: str


@dataclass(frozen=True)
class AccessTokenExpired:
    """An access token stopped being accepted before its expiry."""

    at: float
    access_token_sha256: str


@dataclass(frozen=True)
class GrantRevoked:
    """A grant ended, and every token on it."""

    at: float
    grant: str
    reason: str


Event = (
    CodeIssued
    | GrantOpened
    | AccessTokenIssued
    | RefreshTokenIssued
    | RefreshTokenPresented
    | LateAnswerEnded
    | GrantRefreshed
    | RefreshTokenSpent
    | AccessTokenExpired
    | GrantRevoked
)
