"""Follows what Ignition's answers say of the limit: what remains of the window, and its end."""

from __future__ import annotations

import math

from ignition_broker.broker.allowance.holding import Holding
from ignition_broker.clock import Clock
from ignition_broker.outbound.exchange import Headers
from ignition_broker.rate_limits import as_texts, retry_after_seconds, told_limit

UNEXPLAINED_PAUSE_PART = 60
"""After a 429 that does not say for how long, no call is made for this part of a window."""
TOO_MANY_REQUESTS = 429


class ToldLimits:
    """Reads answers into a `Holding`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def follow(
        self, holding: Holding, name: str, epoch: int, status: int, headers: Headers
    ) -> None:
        """An answer to a call of the key ``name``, taken in ``epoch``, has come: a 429, or one with
        a header of `LIMIT_HEADERS`."""
        now = self._clock.monotonic()
        texts = as_texts(headers)
        told = told_limit(texts, now=self._clock.now())
        seconds = holding.allowance.seconds
        ends_at = None
        if told.reset_seconds is not None:
            ends_at = now + min(told.reset_seconds, seconds)
        is_over = ends_at is not None and ends_at <= now
        if ends_at is not None and not is_over:
            if holding.end_is_told and ends_at >= holding.ends_at + seconds / 2:
                holding.turn(now)
                holding.has_turned = True
                holding.ends_at = ends_at
            elif holding.end_is_told and ends_at <= holding.ends_at - seconds / 2:
                is_over = True
        holding.answered(name, epoch, is_counted_before=is_over)
        if is_over and status != TOO_MANY_REQUESTS:
            return
        holding.heard_at = now
        if ends_at is not None and not is_over:
            holding.ends_at = min(ends_at, holding.ends_at) if holding.end_is_told else ends_at
            holding.end_is_told = True
        if told.calls is not None:
            holding.calls = told.calls
        if status == TOO_MANY_REQUESTS:
            self._was_refused(holding, texts, told.remaining, ends_at, now)
        elif told.remaining is not None:
            counted = max(holding.calls - told.remaining, 0)
            holding.counted = max(counted, holding.counted or 0)
            if told.remaining < holding.outstanding + holding.spare:
                # More is held than there is: somebody else has used some of it.
                holding.usable_until = -math.inf

    def _was_refused(
        self,
        holding: Holding,
        texts: dict[str, str],
        remaining: int | None,
        ends_at: float | None,
        now: float,
    ) -> None:
        holding.usable_until = -math.inf
        asked = retry_after_seconds(texts.get("retry-after"), now=self._clock.now())
        if not remaining and ends_at is not None:
            holding.counted = holding.calls
            until = ends_at + holding.allowance.turn_margin_seconds
        elif asked is not None:
            until = now + asked
        else:
            until = now + holding.allowance.seconds / UNEXPLAINED_PAUSE_PART
        holding.spent_until = max(until, holding.spent_until or until)
