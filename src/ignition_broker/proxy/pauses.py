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
    token_sha256: str
    count: int
    until: float


class RenewalPauses:
    """Per tenant: 1 s after the first new token that is refused, doubled to 60 s by each more."""

    def __init__(self, clock: Clock, *, most_tenants: int = MOST_TENANTS) -> None:
        self._clock = clock
        self._most_tenants = most_tenants
        self._refusals: OrderedDict[str, _Refusals] = OrderedDict()

    def is_on(self, tenant: str) -> bool:
        refusals = self._refusals.get(tenant)
        return refusals is not None and self._clock.monotonic() < refusals.until

    def new_token_was_refused(self, tenant: str, token_sha256: str) -> None:
        """Counts a token once, however many calls saw it refused."""
        now = self._clock.monotonic()
        known = self._refusals.get(tenant)
        count = 1
        if known is not None and now < known.until + LONGEST_SECONDS:
            if known.token_sha256 == token_sha256:
                return
            count = known.count + 1
        seconds = min(FIRST_SECONDS * 2.0 ** (count - 1), LONGEST_SECONDS)
        self._refusals[tenant] = _Refusals(token_sha256, count, now + seconds)
        self._refusals.move_to_end(tenant)
        if len(self._refusals) > self._most_tenants:
            self._refusals.popitem(last=False)

    def token_was_accepted(self, tenant: str) -> None:
        """By any answer that does not blame the token."""
        refusals = self._refusals.get(tenant)
        if refusals is not None and refusals.count < PATIENCE:
            refusals.until = min(refusals.until, self._clock.monotonic())

    def renewal_helped(self, tenant: str) -> None:
        self._refusals.pop(tenant, None)
