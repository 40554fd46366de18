"""What a caller asks of a token, and when asking Ignition for a new one must wait. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ignition_broker.broker.breaker import Pause
from ignition_broker.model import Grant, IssuedToken

UNCERTAIN_RESERVE_SECONDS = 60.0
UNCERTAIN_RESERVE_PART = 1 / 60


@dataclass(frozen=True, slots=True)
class Want:
    """What a caller needs of a token. Of a version above ``seen_version``, half of its life will
    do where that is less than asked: nothing better is to be had than what Ignition has just given.
    It has less where a replica was stopped between Ignition's answer and its store."""

    seen_version: int
    min_ttl_seconds: float = 0.0
    rejected_sha256: str | None = None
    is_urgent: bool = False

    @property
    def insists(self) -> bool:
        """Whether the token that was seen won't do, however long it lives."""
        return self.is_urgent or self.rejected_sha256 is not None

    def is_met_by(self, token: IssuedToken, now: float) -> bool:
        """``now`` is on the monotonic clock."""
        if token.version > self.seen_version:
            left = token.seconds_left(now)
            return left > 0 and left >= min(self.min_ttl_seconds, token.lifetime_seconds / 2)
        if self.is_urgent or token.sha256 == self.rejected_sha256:
            return False
        return token.lives_for(self.min_ttl_seconds, now)


def pause_before_asking(grant: Grant, token: IssuedToken, want: Want, now: float) -> Pause | None:
    """What the grant's row says against using its refresh token now.

    After a lost answer the refresh token may be spent, and a second use may revoke the family,
    the live access token with it. So a live token is served nearly to its end first: the last
    sixtieth of its life, at most a minute, is left for the try. Whoever saw the token rejected
    has nothing to lose.
    """
    pause = Pause(grant.last_error or "the last refresh failed", 0.0)
    if grant.failures and not (grant.is_uncertain and grant.failures == 1):
        pause = Pause(pause.reason, grant.retry_in_seconds)
    if grant.is_uncertain and want.rejected_sha256 is None:
        reserve = min(UNCERTAIN_RESERVE_SECONDS, token.lifetime_seconds * UNCERTAIN_RESERVE_PART)
        spare = token.seconds_left(now) - reserve
        if spare > pause.seconds:
            pause = Pause("the answer to the last refresh was lost", spare)
    return pause if pause.seconds > 0 else None
