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
    token_sha256: str = ""
    """The last that was refused though new."""
    on_trial_sha256: str = ""
    """Renewed after a 401, and the API has not judged it yet."""


class RenewalPauses:
    """Per tenant: 1 s after the first new token that is refused, doubled to 60 s by each more."""

    def __init__(self, clock: Clock, *, most_tenants: int = MOST_TENANTS) -> None:
        self._clock = clock
        self._most_tenants = most_tenants
        self._tenants: OrderedDict[str, _Refusals] = OrderedDict()

    def may_renew(self, tenant: str, refused_sha256: str) -> bool:
        """Whether the 401 to this token is to be answered by a refresh."""
        known = self._tenants.get(tenant)
        if known is None:
            return True
        if known.on_trial_sha256 == refused_sha256:
            self.new_token_was_refused(tenant, refused_sha256)
        return self._clock.monotonic() >= known.until

    def was_renewed(self, tenant: str, token_sha256: str) -> None:
        known = self._tenants.setdefault(tenant, _Refusals(until=self._clock.monotonic()))
        if known.token_sha256 != token_sha256:
            known.on_trial_sha256 = token_sha256
        self._tenants.move_to_end(tenant)
        if len(self._tenants) > self._most_tenants:
            self._tenants.popitem(last=False)

    def new_token_was_refused(self, tenant: str, token_sha256: str) -> None:
        """Counts a token once, however many calls saw it refused."""
        now = self._clock.monotonic()
        known = self._tenants.get(tenant)
        if known is None or known.token_sha256 == token_sha256:
            return
        known.count = known.count + 1 if now < known.until + LONGEST_SECONDS else 1
        known.until = now + min(FIRST_SECONDS * 2.0 ** (known.count - 1), LONGEST_SECONDS)
        known.token_sha256 = token_sha256
        known.on_trial_sha256 = ""

    def token_was_accepted(self, tenant: str, token_sha256: str) -> None:
        """By any answer that does not blame the token."""
        known = self._tenants.get(tenant)
        if known is None:
            return
        if known.on_trial_sha256 == token_sha256:
            del self._tenants[tenant]
        elif known.count < PATIENCE:
            known.until = min(known.until, self._clock.monotonic())
