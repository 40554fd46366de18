"""Counts what came of refreshes, and adds it to the hour's numbers of all replicas."""

from __future__ import annotations

from collections import Counter
from typing import Final

import structlog

from ignition_broker.broker.grants.token_outcomes import (
    Outcome,
    Refused,
    Renewed,
    Rotated,
    Withdrawn,
)
from ignition_broker.clock import Clock
from ignition_broker.storage import refresh_hours
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError

log = structlog.get_logger(__name__)

FLUSH_SECONDS: Final = 10.0
CLEAR_EVERY_SECONDS: Final = 3600.0
RENEWED: Final = "renewed"
REFUSED: Final = "refused"
FAILED: Final = "failed"


class RefreshTally:
    """A killed process loses what it counted since it last stored: some seconds of a chart."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._counts: Counter[tuple[str, str]] = Counter()
        self._cleared_at = float("-inf")

    def count(self, client: str, outcome: Outcome) -> None:
        """Called with what came of each refresh."""
        match outcome:
            case Renewed() | Rotated():
                counted = RENEWED
            case Refused():
                counted = REFUSED
            case Withdrawn():
                return
            case _:
                counted = FAILED
        self._counts[client, counted] += 1

    async def run(self) -> None:
        """Stores the numbers at intervals, until it is cancelled."""
        while True:
            await self._clock.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Stores what was counted since the last time. What can't be stored waits for the next."""
        counts, self._counts = self._counts, Counter()
        try:
            if counts:
                await self._database.single(lambda c: refresh_hours.add(c, counts))
                counts = Counter()
            now = self._clock.monotonic()
            if now - self._cleared_at >= CLEAR_EVERY_SECONDS:
                await self._database.single(refresh_hours.clear)
                self._cleared_at = now
        except StorageError as error:
            log.warning("refresh_tally_postponed", reason=str(error))
            self._counts += counts
        except Exception:
            # It must survive unforeseen errors.
            log.exception("refresh_tally_failed")
