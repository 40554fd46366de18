"""What a caller needs of a token, and when asking Ignition for a new one must wait. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ignition_broker.broker.errors import BrokerError, NotYetAnswered, RenewedTooOften
from ignition_broker.broker.grants.circuit_breaker import Pause
from ignition_broker.broker.grants.single_flight import Flight
from ignition_broker.model import Grant, IssuedToken
from ignition_broker.storage.new_tokens import EARLY_RENEWAL_WINDOW_SECONDS

UNCERTAIN_RESERVE_SECONDS = 60.0
UNCERTAIN_RESERVE_PART = 1 / 60
EARLY_RENEWALS_AT_ONCE = 10
LONGEST_EARLY_PAUSE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class WantedToken:
    """What a caller needs of a token.

    ``seen_version``: the version that the caller knows. ``min_ttl_seconds``: how long the token
    must live. ``rejected_sha256``: names a token that the API rejected, which won't do.
    ``is_urgent``: an admin asks by hand; only a newer version will do, and nothing delays asking
    Ignition. ``on_callers_word``: nothing but the caller's own word says that a new token is
    needed.
    """

    seen_version: int
    min_ttl_seconds: float = 0.0
    rejected_sha256: str | None = None
    is_urgent: bool = False
    on_callers_word: bool = False

    @property
    def must_renew(self) -> bool:
        """Whether the token that the caller knows won't do, however long it lives."""
        return self.is_urgent or self.rejected_sha256 is not None

    def is_met_by(self, token: IssuedToken, now: float) -> bool:
        """Whether the token will do. ``now``: on the monotonic clock.

        A version above ``seen_version`` will do with half of its life left, where that is less than
        ``min_ttl_seconds``: Ignition has just given it, so there is none that lives longer. It may
        have less left if a replica was stopped between Ignition's answer and storing it.
        """
        # Before the version is looked at: it also rises when a refresh brought no access token.
        if self.rejected_sha256 is not None and token.sha256 == self.rejected_sha256:
            return False
        if token.version > self.seen_version:
            left = token.seconds_left(now)
            return left > 0 and left >= min(self.min_ttl_seconds, token.lifetime_seconds / 2)
        if self.is_urgent:
            return False
        return token.lives_for(self.min_ttl_seconds, now)


def is_final(
    error: BrokerError, joined: Flight[IssuedToken], want: WantedToken, *, has_time: bool
) -> bool:
    """Whether the error of a refresh that a caller joined is that caller's answer too.

    It is not if that refresh ran for other requirements than the caller's: the caller retries with
    its own. ``has_time``: the caller has waited for less than the provider's timeout.
    """
    ran_for_more = joined.min_ttl_seconds > want.min_ttl_seconds
    ran_for_less = want.must_renew and not joined.must_renew
    # Whoever started the refresh has waited for longer than the caller who joined it.
    ended_early = isinstance(error, NotYetAnswered) and has_time
    # Only renewals on a caller's word are paced, and this caller has more than its word.
    is_not_paced = isinstance(error, RenewedTooOften) and not want.on_callers_word
    return not (ran_for_more or ran_for_less or ended_early or is_not_paced)


def is_early(token: IssuedToken, want: WantedToken, now: float) -> bool:
    """Whether a caller forces a renewal that is not due: more than half of the token's life is
    left. The background refresher never renews so far ahead.

    Neither an admin's request counts, nor a token that the built-in proxy saw the API reject: for
    those there are pauses of their own (`proxy.renewal_pauses`), which end when the API accepts the
    new token. ``now``: on the monotonic clock.
    """
    return want.on_callers_word and token.seconds_left(now) > token.lifetime_seconds / 2


def pause_between_early_renewals(grant: Grant, token: IssuedToken) -> Pause | None:
    """How long callers of this tenant may not force another early renewal, on any replica.

    All tenants share the provider's quota, and one key can ask for a renewal at each call: by
    naming the token that it was just given, or by a ``min_ttl`` close to the lifetime. The first
    `EARLY_RENEWALS_AT_ONCE` are free. Then the pause is 1 s, and each renewal doubles it, up to a
    minute or a tenth of the token's life, whichever is less.
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
    """How long the grant's row says that its refresh token must not be used.

    After a lost answer the refresh token may be spent. Using it a second time may revoke the whole
    grant, the live access token included. So a live token is first served nearly to its expiry:
    only the last sixtieth of its life, at most a minute, is left for the try. A caller who saw the
    token rejected has nothing to lose, and does not wait for that. ``now``: on the monotonic clock.
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
