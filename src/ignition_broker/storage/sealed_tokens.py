"""Encrypted tokens on their way into a grant's row, and what all stores of them have in common."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ignition_broker.storage.connection import Row
from ignition_broker.storage.key_notes import ciphertext_end

AGE = """
    issued_at = now() - make_interval(secs => :age),
    expires_at = now() + make_interval(secs => :left)
"""
"""Sets when the tokens were asked for and when the access token expires."""

RETURNED = "grants.tenant_id, grants.version, expires_at, connected_at, issued_at"
"""What `Stored.of` and the notification need of the row."""


@dataclass(frozen=True, slots=True)
class SealedTokens:
    """Encrypted tokens for a grant's row.

    They are encrypted once: a retry stores the same bytes, by which `new_tokens.find_stored`
    recognizes a store that had succeeded.

    ``lifetime_seconds`` and ``refresh_lifetime_seconds`` (None: no known end) count from the
    request that brought the tokens. ``key_fingerprint`` names the key that encrypted them.
    ``has_refresh_token`` is False if Ignition gave none: ``refresh_token`` is then an encrypted
    empty string. ``is_rotated`` is False if the answer had no new refresh token, so that the old
    one stays in force.
    """

    access_token: bytes
    refresh_token: bytes
    token_type: str
    scope: str
    lifetime_seconds: float
    key_fingerprint: str
    has_refresh_token: bool = True
    is_rotated: bool = True
    refresh_lifetime_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the next renewal is due, in seconds from the request that brought the tokens.

    ``renew_after_seconds`` is for a grant in use, ``keepalive_seconds`` for an idle one (0: never).
    Neither is later than ``before_lapse_seconds``, which keeps the refresh token from expiring
    (None: it has no known end).
    """

    renew_after_seconds: float
    keepalive_seconds: float
    before_lapse_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """What a statement stored in the row.

    All moments are on the database's clock. ``issued_at`` is when the request for the tokens was
    sent, ``connected_at`` when the tenant last connected.
    """

    version: int
    expires_at: datetime
    connected_at: datetime
    issued_at: datetime

    @classmethod
    def of(cls, row: Row) -> Stored:
        return cls(row.version, row.expires_at, row.connected_at, row.issued_at)


def sealed_parameters(
    tenant: str, sealed: SealedTokens, schedule: Schedule, age_seconds: float
) -> dict[str, object]:
    """The parameters that every statement which stores tokens binds.

    ``age_seconds``: the time since the request that brought the tokens.
    """
    return {
        "tenant": tenant,
        "access_token": sealed.access_token,
        "refresh_token": sealed.refresh_token,
        "token_type": sealed.token_type,
        "scope": sealed.scope,
        "key_fingerprint": sealed.key_fingerprint,
        "fingerprinted": ciphertext_end(sealed.access_token),
        "age": age_seconds,
        "left": sealed.lifetime_seconds - age_seconds,
        "renew_in": left(schedule.renew_after_seconds, age_seconds),
        "refresh_left": left(sealed.refresh_lifetime_seconds, age_seconds),
    }


def first_due(sealed: SealedTokens, schedule: Schedule, age_seconds: float) -> dict[str, object]:
    """Parameters for a store that sets the next renewal whatever the row held before.

    ``age_seconds``: the time since the request that brought the tokens.
    """
    due_after = schedule.renew_after_seconds
    if schedule.before_lapse_seconds is not None:
        due_after = min(due_after, schedule.before_lapse_seconds)
    has_one = sealed.has_refresh_token
    return {
        "empty_refresh_token": None if has_one else ciphertext_end(sealed.refresh_token),
        "renew_in": left(due_after, age_seconds) if has_one else None,
    }


def left(seconds: float | None, age_seconds: float) -> float | None:
    """Of ``seconds``, what remains after ``age_seconds``; None stays None."""
    return None if seconds is None else max(0.0, seconds - age_seconds)
