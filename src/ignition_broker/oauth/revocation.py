"""Answers of the revocation endpoint, judged and never fetched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ignition_broker.rate_limits import seconds_to_wait

_WORTH_ANOTHER_TRY = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Revoked:
    """Also a token that the provider no longer knew (RFC 7009 section 2.2)."""


@dataclass(frozen=True, slots=True)
class RevocationRefused:
    """The same request would be refused again: the client, the token's type, the address."""

    status: int


@dataclass(frozen=True, slots=True)
class RevocationUnanswered:
    """Nobody knows whether it was carried out; once more does no harm. ``retry_after_seconds`` as
    the server asks."""

    reason: str
    retry_after_seconds: float | None = None


RevocationVerdict = Revoked | RevocationRefused | RevocationUnanswered


def judge_revocation_answer(
    status: int, headers: Mapping[str, str], *, now: datetime
) -> RevocationVerdict:
    """RFC 7009 section 2.2. ``headers`` are looked up in lower case; ``now`` turns a
    time to try again into seconds."""
    if 200 <= status < 300:
        return Revoked()
    if status >= 500 or status in _WORTH_ANOTHER_TRY:
        asked = seconds_to_wait(status, headers, now=now)
        return RevocationUnanswered(f"status {status}", asked)
    return RevocationRefused(status)
