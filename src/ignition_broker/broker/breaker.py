"""A circuit breaker for the provider as a whole: a dead Ignition is asked once in a while, and
not by every caller."""

from __future__ import annotations

from ignition_broker.clock import Clock

OPENS_AFTER = 5
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0


class CircuitBreaker:
    """Opens after `OPENS_AFTER` failures in a row, then lets one request at a time try.

    ``probe_seconds``: how long that one may take before another is let through.
    """

    def __init__(self, clock: Clock, *, probe_seconds: float) -> None:
        self._clock = clock
        self._probe_seconds = probe_seconds
        self._failures = 0
        self._closed_until = 0.0

    @property
    def is_open(self) -> bool:
        return self._failures >= OPENS_AFTER

    def wait_seconds(self) -> float:
        """0 where a request may go out now."""
        return max(0.0, self._closed_until - self._clock.monotonic()) if self.is_open else 0.0

    def begin(self) -> None:
        """A request goes out; while open it is the probe, and the others wait for it."""
        if self.is_open:
            self._closed_until = self._clock.monotonic() + self._probe_seconds

    def succeeded(self) -> None:
        """The provider answered for itself, whatever it said."""
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        if self.is_open:
            doublings = min(self._failures - OPENS_AFTER, 10)
            pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**doublings)
            self._closed_until = self._clock.monotonic() + pause
