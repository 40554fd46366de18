"""When a 401 causes no refresh: the API has just refused a token that was new."""

from __future__ import annotations

from dataclasses import dataclass

from ignition_broker.bounded_map import BoundedMap
from ignition_broker.clock import Clock

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 60.0
MOST_TENANTS = 10_000
# After so many renewals that did not help, a good answer to another call no longer ends the pause:
# otherwise an endpoint that always says 401 would cost a refresh at each of its calls.
PATIENCE = 3


@dataclass(slots=True)
class _Refusals:
    """Of one tenant's new tokens."""

    until: float
    """The end of the pause, in seconds of the monotonic clock."""
    count: int = 0
    version: int = 0
    """Of the newest token that was refused although it was new."""
    on_trial_above: int | None = None
    """A 401 to this version began a renewal; the API has not yet answered a call with the token
    that follows it."""


class RenewalPauses:
    """Exponential back-off per tenant: 1 s after the first new token that is refused, twice as long
    after each further one, 60 s at most.

    Tokens are told apart by their versions, which count up. At most ``most_tenants`` are
    remembered.
    """

    def __init__(self, clock: Clock, *, most_tenants: int = MOST_TENANTS) -> None:
        self._clock = clock
        self._tenants: BoundedMap[str, _Refusals] = BoundedMap(most_tenants)

    def may_renew(self, tenant: str, version: int) -> bool:
        """Whether a 401 to the token of this version should cause a refresh. True counts as the
        beginning of that refresh."""
        now = self._clock.monotonic()
        known = self._tenants.get(tenant)
        if known is None:
            known = _Refusals(until=now)
            self._tenants.store(tenant, known)
        if known.on_trial_above is not None and version > known.on_trial_above:
            self.new_token_was_refused(tenant, version)
        if now < known.until:
            return False
        # Set now and not when the renewal ends: another call may be the first to see the new token
        # refused.
        known.on_trial_above = max(version, known.on_trial_above or 0)
        self._tenants.move_to_end(tenant)
        return True

    def new_token_was_refused(self, tenant: str, version: int) -> None:
        """Begins or prolongs the pause; a token counts once, however many calls see it refused."""
        now = self._clock.monotonic()
        known = self._tenants.get(tenant)
        if known is None or version <= known.version:
            return
        known.count = known.count + 1 if now < known.until + LONGEST_SECONDS else 1
        known.until = now + min(FIRST_SECONDS * 2.0 ** (known.count - 1), LONGEST_SECONDS)
        known.version = version
        known.on_trial_above = None

    def token_was_accepted(self, tenant: str, version: int) -> None:
        """The API gave an answer that does not blame the token, which ends the pause."""
        known = self._tenants.get(tenant)
        if known is None:
            return
        if known.on_trial_above is not None and version > known.on_trial_above:
            del self._tenants[tenant]
        elif known.count < PATIENCE:
            known.until = min(known.until, self._clock.monotonic())
