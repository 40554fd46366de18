"""When to stop asking for another token: the API refuses even the one that was just renewed."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from ignition_broker.clock import Clock

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 60.0
MOST_TENANTS = 10_000
# So many renewals that did not help, and other calls' good answers end the pause no more: an
# endpoint that always says 401 would otherwise cost a refresh at each of its calls.
PATIENCE = 3


@dataclass(slots=True)
class _Refusals:
    until: float
    count: int = 0
    version: int = 0
    """The last that was refused though new."""
    on_trial_above: int | None = None
    """A renewal of this version was begun after a 401; the API has yet to judge what follows it."""


class RenewalPauses:
    """Per tenant: 1 s after the first new token that is refused, doubled to 60 s by each more.

    Tokens are told apart by their versions, which count up.
    """

    def __init__(self, clock: Clock, *, most_tenants: int = MOST_TENANTS) -> None:
        self._clock = clock
        self._most_tenants = most_tenants
        self._tenants: OrderedDict[str, _Refusals] = OrderedDict()

    def may_renew(self, tenant: str, version: int) -> bool:
        """Whether the 401 to this token is to be answered by a refresh, which then begins."""
        now = self._clock.monotonic()
        known = self._tenants.get(tenant)
        if known is None:
            known = self._tenants[tenant] = _Refusals(until=now)
            if len(self._tenants) > self._most_tenants:
                self._tenants.popitem(last=False)
        if known.on_trial_above is not None and version > known.on_trial_above:
            self.new_token_was_refused(tenant, version)
        if now < known.until:
            return False
        # From here on, not from the renewal's end: another call may be first to see the new token
        # refused.
        known.on_trial_above = max(version, known.on_trial_above or 0)
        self._tenants.move_to_end(tenant)
        return True

    def new_token_was_refused(self, tenant: str, version: int) -> None:
        """Counts a token once, however many calls saw it refused."""
        now = self._clock.monotonic()
        known = self._tenants.get(tenant)
        if known is None or version <= known.version:
            return
        known.count = known.count + 1 if now < known.until + LONGEST_SECONDS else 1
        known.until = now + min(FIRST_SECONDS * 2.0 ** (known.count - 1), LONGEST_SECONDS)
        known.version = version
        known.on_trial_above = None

    def token_was_accepted(self, tenant: str, version: int) -> None:
        """By any answer that does not blame the token."""
        known = self._tenants.get(tenant)
        if known is None:
            return
        if known.on_trial_above is not None and version > known.on_trial_above:
            del self._tenants[tenant]
        elif known.count < PATIENCE:
            known.until = min(known.until, self._clock.monotonic())
