"""What a caller asks of a token, and when asking Ignition for a new one must wait. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ignition_broker.broker.grants.circuit_breaker import Pause
from ignition_broker.model import Grant, IssuedToken
from ignition_broker.storage.new_tokens import EARLY_RENEWAL_WINDOW_SECONDS

UNCERTAIN_RESERVE_SECONDS = 60.0
UNCERTAIN_RESERVE_PART = 1 / 60
EARLY_RENEWALS_AT_ONCE = 10
LONGEST_EARLY_PAUSE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class WantedToken:
    """What a caller needs of a token. Of a version above ``seen_version``, half of its life will
    do where that is less than asked: nothing better is to be had than what Ignition has just given.
    It has less where a replica was stopped between Ignition's answer and its store.
    ``on_callers_word``: nothing but the caller's own word says that a new token is needed."""

    seen_version: int
    min_ttl_seconds: float = 0.0
    rejected_sha256: str | None = None
    is_urgent: bool = False
    on_callers_word: bool = False

    @property
    def must_renew(self) -> bool:
        """Whether the token that was seen won't do, however long it lives."""
        return self.is_urgent or self.rejected_sha256 is not None

    def is_met_by(self, token: IssuedToken, now: float) -> bool:
        """``now`` is on the monotonic clock."""
        # Ahead of the version: it also rises where a refresh brought no new access token.
        if self.rejected_sha256 is not None and token.sha256 == self.rejected_sha256:
            return False
        if token.version > self.seen_version:
            left = token.seconds_left(now)
            return left > 0 and left >= min(self.min_ttl_seconds, token.lifetime_seconds / 2)
        if self.is_urgent:
            return False
        return token.lives_for(self.min_ttl_seconds, now)


def is_early(token: IssuedToken, want: WantedToken, now: float) -> bool:
    """Whether a caller forces a renewal that is not due: more than half of the token's life is
    left, and the background refresher never renews so far ahead.

    Neither an admin's wish counts nor what the built-in proxy saw the API refuse: that has pauses
    of its own (`proxy.renewal_pauses`), which end when the API accepts the new token.
    """
    return want.on_callers_word and token.seconds_left(now) > token.lifetime_seconds / 2


def pause_between_early_renewals(grant: Grant, token: IssuedToken) -> Pause | None:
    """How long callers of this tenant may not force another early renewal, on any replica.

    All tenants share the provider's quota, and one key can ask for a renewal at each call, by
    naming the token that it was just given or by a ``min_ttl`` close to the lifetime. The first
    `EARLY_RENEWALS_AT_ONCE` are free. The pause then grows from 1 s, doubled by each renewal, to
    a minute or a tenth of the token's life, whichever is less.
    """
    too_many = grant.early_renewals - EARLY_RENEWALS_AT_ONCE
    ago = grant.refreshed_seconds_ago
    if too_many < 0 or ago is None or ago >= EARLY_RENEWAL_WINDOW_SECONDS:
        return None
    longest = min(LONGEST_EARLY_PAUSE_SECONDS, token.lifetime_seconds / 10)
    seconds = min(2.0 ** min(too_many, 10), longest) - ago
    return Pause("callers had it renewed too often just now", seconds) if seconds > 0 else None


def pause_before_asking(
    grant: Grant, token: IssuedToken, want: WantedToken, now: float
) -> Pause | None:
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
