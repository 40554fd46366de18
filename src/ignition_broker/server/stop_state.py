"""Tells the application that the process has been told to stop, and how long it still has."""

from __future__ import annotations

from collections.abc import Callable

from ignition_broker.clock import Clock

STATE_KEY = "stopping"
"""The key under which the server finds it in the lifespan's state."""


class Stopping:
    """Whether the stop has begun; the ``grace_seconds`` count from `begin`."""

    def __init__(self, clock: Clock, *, grace_seconds: float) -> None:
        self._clock = clock
        self._grace_seconds = grace_seconds
        self._ends_at: float | None = None
        self._calls: list[Callable[[], object]] = []

    @property
    def has_begun(self) -> bool:
        return self._ends_at is not None

    def when_begun(self, call: Callable[[], object]) -> None:
        """``call`` is called once the stop begins."""
        self._calls.append(call)

    def begin(self) -> None:
        """Called by the server at the first signal; further calls do nothing."""
        if self._ends_at is None:
            self._ends_at = self._clock.monotonic() + self._grace_seconds
            for call in self._calls:
                call()

    def seconds_left(self) -> float:
        """What is left of the grace; all of it before the stop begins."""
        if self._ends_at is None:
            return self._grace_seconds
        return max(0.0, self._ends_at - self._clock.monotonic())
