"""A circuit breaker for the provider as a whole: a dead Ignition is asked once in a while, and
not by every caller."""

from __future__ import annotations

from dataclasses import dataclass

from ignition_broker.clock import Clock

OPENS_AFTER = 5
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 5.0
_FAILING_REMEMBERED = 100


@dataclass(frozen=True, slots=True)
class Pause:
    """Why Ignition is not asked just now, and for how long."""

    reason: str
    seconds: float


class CircuitBreaker:
    """Opens after `OPENS_AFTER` failures in a row, then lets one request at a time try.

    The failures of one grant alone don't open it: that grant has a back-off of its own, and the
    others may still be answered. ``probe_seconds``: how long the one request may take before
    another is let through.
    """

    def __init__(self, clock: Clock, *, probe_seconds: float) -> None:
        self._clock = clock
        self._probe_seconds = probe_seconds
        self._failures = 0
        self._failing: set[str] = set()
        self._closed_until = 0.0
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        return self._failures >= OPENS_AFTER and len(self._failing) > 1

    def pause(self) -> Pause | None:
        """None: a request may go out now; while open it is the probe, and the others wait."""
        if not self.is_open:
            return None
        now = self._clock.monotonic()
        if now < self._closed_until:
            return Pause("too many requests to it failed", self._closed_until - now)
        self._closed_until = now + self._probe_seconds
        self._is_probing = True
        return None

    def release(self) -> None:
        """Nothing went out after all."""
        if self._is_probing:
            self._is_probing = False
            self._closed_until = self._clock.monotonic()

    def succeeded(self) -> None:
        """The provider answered for itself, whatever it said."""
        self._failures = 0
        self._failing.clear()
        self._is_probing = False

    def failed(self, whose: str, *, asked_seconds: float | None = None) -> None:
        """``whose``: tells one grant's requests from another's. ``asked_seconds``: how long the
        provider asked to be left alone; the pause is no longer than that."""
        self._failures += 1
        if len(self._failing) < _FAILING_REMEMBERED:
            self._failing.add(whose)
        self._is_probing = False
        if self.is_open:
            doublings = min(self._failures - OPENS_AFTER, 10)
            pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**doublings)
            if asked_seconds is not None:
                pause = min(pause, asked_seconds)
            self._closed_until = self._clock.monotonic() + pause
