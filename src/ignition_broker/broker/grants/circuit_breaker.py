"""A circuit breaker for the provider as a whole: while Ignition is down, one request at a time
asks it, and callers are told so at once."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

from ignition_broker.clock import Clock

OPENS_AFTER = 5
"""Failures in a row, of two grants or more."""
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 5.0
_FAILING_REMEMBERED = 100


@dataclass(frozen=True, slots=True)
class Pause:
    """Why Ignition is not asked just now, and for how many seconds."""

    reason: str
    seconds: float


class Permit:
    """The permission to send requests to the provider; a context manager.

    Hold it from the decision to ask until the provider has answered or the request is given up. It
    may be held several times over, by a caller and by the request that outlives the caller. If the
    last holder leaves and the breaker was told of no outcome, nothing was sent: the next caller
    may probe at once.
    """

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker
        self._holders = 0

    def __enter__(self) -> Permit:
        self._holders += 1
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._holders -= 1
        if not self._holders:
            self._breaker.end_unused_probe(self)


class CircuitBreaker:
    """Opens after `OPENS_AFTER` failures in a row, then permits one probe at a time.

    The failures of one grant alone don't open it: that grant has a back-off of its own, and the
    others may still be answered. ``probe_seconds``: how long a probe may take before the next one
    is permitted.
    """

    def __init__(self, clock: Clock, *, probe_seconds: float) -> None:
        self._clock = clock
        self._probe_seconds = probe_seconds
        self._failures = 0
        self._failing: set[str] = set()
        self._blocked_until = 0.0
        self._probe: Permit | None = None

    @property
    def is_open(self) -> bool:
        return self._failures >= OPENS_AFTER and len(self._failing) > 1

    @property
    def failures(self) -> int:
        """How many there were in a row."""
        return self._failures

    def permit(self) -> Permit | Pause:
        """The permission to ask the provider, or how long to wait for it.

        While the breaker is open, the permit that it gives is the probe, and everybody else waits
        until its outcome is known.
        """
        if not self.is_open:
            return Permit(self)
        now = self._clock.monotonic()
        if now < self._blocked_until:
            return Pause("too many requests to it failed", self._blocked_until - now)
        self._blocked_until = now + self._probe_seconds
        self._probe = Permit(self)
        return self._probe

    def permit_regardless(self) -> Permit:
        """A permit whatever the breaker's state, for an admin who asks by hand; never the probe."""
        return Permit(self)

    def end_unused_probe(self, permit: Permit) -> None:
        """Makes room for the next probe if ``permit`` is the probe and nothing came of it."""
        if self._probe is permit:
            self._probe = None
            self._blocked_until = self._clock.monotonic()

    def succeeded(self) -> None:
        """The provider answered for itself, whatever it said."""
        self._failures = 0
        self._failing.clear()
        self._probe = None

    def failed(self, whose: str, *, asked_seconds: float | None = None) -> None:
        """The provider did not answer, or said that it is overloaded.

        ``whose``: any name that tells one grant's requests from another's. ``asked_seconds``: how
        long the provider asked to be left alone; the pause is no longer than that.
        """
        self._failures += 1
        if len(self._failing) < _FAILING_REMEMBERED:
            self._failing.add(whose)
        self._probe = None
        if self.is_open:
            doublings = min(self._failures - OPENS_AFTER, 10)
            pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**doublings)
            if asked_seconds is not None:
                pause = min(pause, asked_seconds)
            self._blocked_until = self._clock.monotonic() + pause
