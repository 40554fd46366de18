"""Judges answers of the revocation endpoint. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ignition_broker.rate_limits import seconds_to_wait

_WORTH_ANOTHER_TRY = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Revoked:
    """The token is revoked, or the provider did not know it (RFC 7009 section 2.2)."""


@dataclass(frozen=True, slots=True)
class RevocationRefused:
    """Refused because of the client, the token's type or the address; a retry would not help."""

    status: int


@dataclass(frozen=True, slots=True)
class RevocationUnanswered:
    """Unknown whether it was carried out; a retry does no harm.

    ``retry_after_seconds``: how long the server asks to wait; None: it does not say.
    """

    reason: str
    retry_after_seconds: float | None = None


RevocationVerdict = Revoked | RevocationRefused | RevocationUnanswered


def judge_revocation_answer(
    status: int, headers: Mapping[str, str], *, now: datetime
) -> RevocationVerdict:
    """Judges an answer of the revocation endpoint (RFC 7009 section 2.2).

    ``headers``: with names in lower case. ``now``: the wall clock, to turn a date in
    ``Retry-After`` into seconds.
    """
    if 200 <= status < 300:
        return Revoked()
    if status >= 500 or status in _WORTH_ANOTHER_TRY:
        asked = seconds_to_wait(status, headers, now=now)
        return RevocationUnanswered(f"status {status}", asked)
    return RevocationRefused(status)
