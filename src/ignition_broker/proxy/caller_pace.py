"""Callers who send a body or take an answer too slowly to keep a slot of the proxy."""

from __future__ import annotations

from collections.abc import Callable

from ignition_broker.outbound.errors import ExchangeError

LEAST_BYTES_PER_SECOND = 500
"""A caller's average, at the least: the default of Apache's mod_reqtimeout."""
BODY_GRACE_SECONDS = 30.0
"""A caller that sends a body may be waited for so long beyond what its bytes have earned."""
ANSWER_GRACE_SECONDS = 120.0
"""The same for each piece of an answer, 64 KiB at most. Earlier pieces earn no time: megabytes of
them may lie unread in the sockets' buffers."""


class CallerTooSlow(ExchangeError):
    """The call was ended, so that its slot is free for others."""


class CallerPace:
    """Adds up the time for which the proxy waits for the caller.

    A pause of the API's does not count, nor does one in which the API does not read the body.
    ``monotonic`` gives seconds; ``grace_seconds`` is allowed on top of `LEAST_BYTES_PER_SECOND`.
    """

    _waited_seconds = 0.0
    _since: float | None = None
    _bytes = 0

    def __init__(self, monotonic: Callable[[], float], grace_seconds: float) -> None:
        self._monotonic = monotonic
        self._grace_seconds = grace_seconds

    def starts_to_wait(self) -> None:
        """The proxy waits for the caller, until `moved`."""
        self._since = self._monotonic()

    def starts_anew(self) -> None:
        """As `starts_to_wait`, and earlier waits and bytes no longer count."""
        self._waited_seconds, self._bytes = 0.0, 0
        self._since = self._monotonic()

    def moved(self, size: int) -> None:
        """The caller sent or took ``size`` bytes, which ends the wait."""
        if self._since is not None:
            self._waited_seconds += self._monotonic() - self._since
            self._since = None
        self._bytes += size

    @property
    def is_too_slow(self) -> bool:
        """Whether the proxy is waiting and has waited for too long; False while it is not."""
        if self._since is None:
            return False
        waited_seconds = self._waited_seconds + self._monotonic() - self._since
        return waited_seconds > self._grace_seconds + self._bytes / LEAST_BYTES_PER_SECOND
