"""Lets long-running commands wait for a Postgres that restarts meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ignition_broker.clock import Clock
from ignition_broker.storage.connection import Connection, Driver
from ignition_broker.storage.database import Database, Result
from ignition_broker.storage.errors import SchemaUnfit, SessionsNotKept, StorageUnavailable

PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.5


class PatientDatabase(Database):
    """Retries a failing statement for ``patience_seconds``, if Postgres was reached before.

    A wrong address is therefore reported at once. ``on_wait(reason)`` is called when a wait begins.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        pool_size: int,
        on_wait: Callable[[str], None],
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        super().__init__(url, pool_size=pool_size)
        self._clock = clock
        self._on_wait = on_wait
        self._command_patience_seconds = patience_seconds
        self._was_reached = False

    async def once(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        return await self.patiently(lambda: super(PatientDatabase, self).once(work))

    async def patiently(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Retries ``work`` from its beginning; it must be safe to do twice."""
        give_up_at: float | None = None
        while True:
            try:
                return await work()
            except (SchemaUnfit, SessionsNotKept):
                raise
            except StorageUnavailable as error:
                now = self._clock.monotonic()
                if give_up_at is None:
                    if not self._was_reached:
                        raise
                    give_up_at = now + self._command_patience_seconds
                    self._on_wait(str(error))
                elif now >= give_up_at:
                    raise
            await self._clock.sleep(PAUSE_SECONDS)

    async def _opened(self, application_name: str = "ignition-broker") -> Driver:
        driver = await super()._opened(application_name)
        self._was_reached = True
        return driver
