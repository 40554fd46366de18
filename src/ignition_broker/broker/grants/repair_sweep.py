"""The repair sweep: looks for rows that went back before anybody reads them."""

from __future__ import annotations

import structlog

from ignition_broker.broker.grants.read_repair import ReadRepair
from ignition_broker.clock import Clock
from ignition_broker.storage.errors import StorageError

SWEEP_SECONDS = 10.0
"""How often everything that is remembered is looked at."""
RETRY_SECONDS = 1.0
"""For rows that could not be written, because somebody had them locked."""
FAILED_PAUSE_SECONDS = 0.25
ROWS_AT_ONCE = 100
"""Callers wait while an answer of the database's is compared: 0.3 ms for so many rows."""

log = structlog.get_logger(__name__)


class RepairSweep:
    """Runs when the change feed works again, when it brings an older version than is known, and
    every `SWEEP_SECONDS`."""

    def __init__(self, repair: ReadRepair, clock: Clock) -> None:
        self._repair = repair
        self._queue = repair.queue
        self._clock = clock
        self._full_sweep_at = clock.monotonic() + SWEEP_SECONDS

    async def run(self) -> None:
        """Sweeps until it is cancelled."""
        while True:
            queue = self._queue
            is_soon = queue.to_check or queue.to_compare or self._repair.settling.is_feed_broken
            await queue.wait(RETRY_SECONDS if is_soon else SWEEP_SECONDS)
            if self._clock.monotonic() >= self._full_sweep_at:
                self._full_sweep_at = self._clock.monotonic() + SWEEP_SECONDS
                queue.is_full = True
            try:
                await self._sweep()
            except Exception as error:
                if not isinstance(error, StorageError):
                    # Grants depend on this loop: it must survive unforeseen errors.
                    log.exception("repair_failed")
                queue.wake()
                await self._clock.sleep(FAILED_PAUSE_SECONDS)

    async def _sweep(self) -> None:
        """Empties the queue; what could not be looked at is queued again."""
        tenants, is_full = self._queue.to_check, self._queue.is_full
        self._queue.to_check, self._queue.is_full = set(), False
        try:
            await self._look_at(tenants, is_full=is_full)
        except BaseException:
            self._queue.to_check |= tenants
            self._queue.is_full |= is_full
            raise

    async def _look_at(self, tenants: set[str], *, is_full: bool) -> None:
        if is_full:
            tenants.update(self._repair.remembered_tenants())
            await self._repair.revoke_keys_again()
        everyone = sorted(tenants)
        if not everyone and self._repair.settling.is_out_of_reach:
            # Only to find out whether Postgres answers again.
            await self._repair.check_all([])
        for start in range(0, len(everyone), ROWS_AT_ONCE):
            await self._repair.check_all(everyone[start : start + ROWS_AT_ONCE])
        while self._queue.to_compare:
            batch = self._queue.to_compare[-ROWS_AT_ONCE:]
            await self._repair.check_all(batch)
            del self._queue.to_compare[-len(batch) :]
