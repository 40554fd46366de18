"""When a grant is renewed next: ahead of its expiry, while it is idle, and after a failure."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ignition_broker.storage.sealed_tokens import Schedule

LONGEST_BACK_OFF_SECONDS = 15.0
OPERATOR_PAUSE_SECONDS = 30.0
"""Before the next try where only an operator can mend what is wrong."""


@dataclass(frozen=True, slots=True)
class RefreshPolicy:
    """``lead_seconds``: how long before its expiry a token is renewed. ``keepalive_seconds``: how
    often an idle grant is renewed; 0: never."""

    lead_seconds: float
    keepalive_seconds: float

    def schedule(
        self, lifetime_seconds: float, refresh_lifetime_seconds: float | None = None
    ) -> Schedule:
        """When to renew tokens that live for so many seconds; None: no known end.

        The access token is renewed by the lead before it expires, or at half of its life where
        that is later. The refresh token is renewed when two thirds of its life are over. All are
        spread by a tenth, so that grants that were connected together don't fall due together.
        """
        lead = min(self.lead_seconds, lifetime_seconds / 2) * _spread()
        keepalive = self.keepalive_seconds * _spread()
        before_lapse = None
        if refresh_lifetime_seconds is not None:
            before_lapse = refresh_lifetime_seconds * 2 / 3 * _spread()
        return Schedule(max(0.0, lifetime_seconds - lead), keepalive, before_lapse)


def back_off_seconds(failures: int) -> float:
    """How long to wait after so many failures in a row: exponential, with full jitter."""
    return random.uniform(0, min(LONGEST_BACK_OFF_SECONDS, 2.0 ** min(failures, 10)))  # noqa: S311


def _spread() -> float:
    return random.uniform(0.9, 1.0)  # noqa: S311
