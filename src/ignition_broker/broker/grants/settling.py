"""After a break of the change feed the database may have gone back: what must wait until that is
settled."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from ignition_broker.clock import Clock
from ignition_broker.storage.errors import StorageError

SETTLE_SECONDS = 1.5
"""How long after the change feed works again no refresh token is used that is older than the break:
replicas that hold newer answers store them again meanwhile."""
DEAF_SECONDS = 3.0
"""The same while the feed stays broken, counted from when Postgres answers again."""

Result = TypeVar("Result")


class Settling:
    """Whether replicas may be about to store again what a failover lost.

    Times are on the monotonic clock. ``broken_at``: when the feed last broke; None: never.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._is_fed = False
        self._settled_at = 0.0
        self._reached_at = 0.0
        self.broken_at: float | None = None
        self.is_out_of_reach = False
        """Postgres was last found away, or the feed has just broken."""

    def feed_ended(self) -> bool:
        """The change feed is broken, perhaps because Postgres fails over. False if it was so
        before."""
        if not self._is_fed:
            return False
        self._is_fed, self.is_out_of_reach = False, True
        self.broken_at = self._clock.monotonic()
        return True

    def feed_confirmed(self) -> bool:
        """The change feed works. Whether it had been broken before."""
        if self._is_fed:
            return False
        self._is_fed = True
        if self.broken_at is None:
            return False
        self._settled_at = self._clock.monotonic() + SETTLE_SECONDS
        return True

    @property
    def is_feed_broken(self) -> bool:
        """False before the feed has worked for the first time."""
        return self.broken_at is not None and not self._is_fed

    @property
    def is_settling(self) -> bool:
        """Whether replicas may be about to store what this one never heard of."""
        if self.broken_at is None:
            return False
        if self._is_fed:
            return self._clock.monotonic() < self._settled_at
        return self.is_out_of_reach or self._clock.monotonic() < self._reached_at + DEAF_SECONDS

    def may_be_behind(self, issued_since: float) -> bool:
        """Whether a row whose tokens are from ``issued_since`` may be older than what was lost."""
        broken_at = self.broken_at
        return broken_at is not None and self.is_settling and issued_since < broken_at

    async def reaching(self, asked: Awaitable[Result]) -> Result:
        """Awaits what was asked of Postgres, and notes whether it answers.

        Raises what ``asked`` raises.
        """
        try:
            answer = await asked
        except StorageError:
            self.is_out_of_reach = True
            raise
        if self.is_out_of_reach:
            self.is_out_of_reach, self._reached_at = False, self._clock.monotonic()
        return answer
