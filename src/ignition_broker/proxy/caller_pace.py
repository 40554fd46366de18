"""Callers who send a body or take an answer so slowly that they hold a place for nothing."""

from __future__ import annotations

from collections.abc import Callable

from ignition_broker.outbound.errors import ExchangeError

LEAST_BYTES_PER_SECOND = 500
"""Of a body, on the average, as Apache's mod_reqtimeout has it."""
BODY_GRACE_SECONDS = 30.0
"""So long a caller may be waited for beyond what its bytes so far have earned."""
ANSWER_GRACE_SECONDS = 120.0
"""For one piece of an answer, 64 KiB at most. What came before earns nothing: megabytes of it may
lie in the sockets' buffers unread."""


class CallerTooSlow(ExchangeError):
    """The call was ended, so that others may have its place."""


class Pace:
    """Counts the time for which the caller is waited for, and no other: a pause of the API's, or
    one that the API makes by not reading, is none of the caller's."""

    _waited_seconds = 0.0
    _since: float | None = None
    _bytes = 0

    def __init__(self, monotonic: Callable[[], float], grace_seconds: float) -> None:
        self._monotonic = monotonic
        self._grace_seconds = grace_seconds

    def waits(self) -> None:
        """From now on, until `moved`."""
        self._since = self._monotonic()

    def waits_anew(self) -> None:
        """From now on, with nothing earned before."""
        self._waited_seconds, self._bytes = 0.0, 0
        self._since = self._monotonic()

    def moved(self, size: int) -> None:
        """So many bytes came, or were taken."""
        if self._since is not None:
            self._waited_seconds += self._monotonic() - self._since
            self._since = None
        self._bytes += size

    @property
    def is_too_slow(self) -> bool:
        if self._since is None:
            return False
        waited_seconds = self._waited_seconds + self._monotonic() - self._since
        return waited_seconds > self._grace_seconds + self._bytes / LEAST_BYTES_PER_SECOND
