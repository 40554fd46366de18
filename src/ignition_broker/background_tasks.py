"""The tasks that run beside the requests, from the start of a process to its end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ignition_broker.broker.allowance.gate import AllowanceGate
from ignition_broker.broker.audit.recorder import AuditRecorder
from ignition_broker.broker.background import BackgroundRefresher
from ignition_broker.broker.grants.due_renewals import DueRenewals
from ignition_broker.broker.grants.repair_sweep import RepairSweep
from ignition_broker.broker.grants.unrenewable import UnrenewableWatcher
from ignition_broker.clock import Clock
from ignition_broker.model import GrantStatus
from ignition_broker.server.stop_state import Stopping
from ignition_broker.settings import Settings
from ignition_broker.storage.change_notices import (
    API_KEYS_CHANNEL,
    REVOKED_KEYS_CHANNEL,
    GrantChange,
    KeyRevocation,
)
from ignition_broker.storage.listen import Listener
from ignition_broker.telemetry import Metrics
from ignition_broker.wiring import Parts
from ignition_broker.wiring_notifications import deliverer

COLLECT_AT = 50_000
"""The garbage collector looks for cycles after so many more objects were made than freed. By
Python's default of 700 it looks at every object of two thousand running calls once every few
calls."""
SHUTDOWN_STORE_SECONDS = 5.0
"""A refresh in flight gets at least so long to store its answer, if need be beyond the grace."""


class BackgroundTasks:
    """Hears of changes, renews grants, repairs rows, revokes tokens, delivers events, counts
    refreshes and writes the audit trail."""

    def __init__(
        self,
        settings: Settings,
        parts: Parts,
        audit_recorder: AuditRecorder,
        stopping: Stopping,
        clock: Clock,
        metrics: Metrics,
        gate: AllowanceGate | None,
    ) -> None:
        self._parts = parts
        self._gate = gate
        self._audit_recorder = audit_recorder
        self._stopping = stopping
        self._listener = change_listener(parts, clock)
        self._sweep = RepairSweep(parts.repair, clock)
        self._deliverer = deliverer(settings, parts, clock, metrics)
        self._endings = UnrenewableWatcher(
            parts.database, clock, on_ending=metrics.grants_ending_soon.inc
        )
        self._schedule = BackgroundRefresher(
            parts.database,
            [
                DueRenewals(
                    parts.clients.named(name).breaker,
                    parts.refresher,
                    clock,
                    rate=settings.broker_refresh_rate,
                    client=name,
                )
                for name in parts.clients.names
            ],
            parts.issuer,
            parts.access,
            clock,
            audit_retention_days=settings.broker_audit_retention,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the tasks within the block. Its end waits for the refreshes and code exchanges in
        flight, so that what Ignition answers is stored."""
        listening = asyncio.create_task(self._listener.run())
        renewing = asyncio.create_task(self._schedule.run())
        repairing = asyncio.create_task(self._sweep.run())
        recording = asyncio.create_task(self._audit_recorder.run())
        ending = asyncio.create_task(self._endings.run())
        revoking = asyncio.create_task(self._parts.revocations.run())
        watching = [asyncio.create_task(each.run()) for each in self._parts.watches]
        tallying = asyncio.create_task(self._parts.tally.run())
        delivering = asyncio.create_task(self._deliverer.run())
        identifying = asyncio.create_task(self._parts.identification.run())
        gate = self._gate
        metering = [] if gate is None else [asyncio.create_task(gate.run())]
        try:
            # Once the process is told to stop, no renewal begins that no caller waits for; those
            # that have begun go on.
            self._stopping.when_begun(renewing.cancel)
            yield
        finally:
            await _cancelled(ending)
            await _cancelled(delivering)
            await _cancelled(revoking)
            await _cancelled(identifying)
            await _cancelled(renewing)
            grace_seconds = max(self._stopping.seconds_left(), SHUTDOWN_STORE_SECONDS)
            await asyncio.gather(
                self._parts.refresher.end(grace_seconds),
                self._parts.connector.exchanges.wait_all(grace_seconds),
                self._deliverer.close(grace_seconds),
            )
            await _cancelled(*watching, *metering, tallying)
            await self._parts.tally.flush()
            if gate is not None:
                await gate.close()
            await _cancelled(listening)
            await _cancelled(repairing)
            await _cancelled(recording)
            await self._audit_recorder.close()


def change_listener(parts: Parts, clock: Clock) -> Listener:
    """A listener that drops from memory what another replica changed in the database."""

    def on_notice(channel: str, payload: str) -> None:
        if channel == REVOKED_KEYS_CHANNEL:
            revoked = KeyRevocation.parse(payload)
            parts.repair.note_revocation(revoked.name, revoked.created_at_us)
            return
        if channel == API_KEYS_CHANNEL:
            parts.access.forget(payload)
            return
        change = GrantChange.parse(payload)
        if change.status is GrantStatus.CONNECTED:
            parts.cache.drop_older(change.tenant, change.version)
        else:
            parts.cache.forget(change.tenant)
        parts.repair.note_change(change.tenant, change.version, change.status)
        parts.wakeups.wake(change.tenant)

    def on_proof(asked_at: float) -> None:
        parts.change_feed.delivery_confirmed(asked_at)
        parts.repair.feed_confirmed()

    def on_lost() -> None:
        parts.change_feed.listening_ended()
        parts.repair.feed_ended()

    return Listener(
        parts.database,
        clock,
        on_notice=on_notice,
        on_alive=parts.change_feed.listening_began,
        on_proof=on_proof,
        on_deaf=parts.change_feed.delivery_failed,
        on_lost=on_lost,
    )


def tune_garbage_collector() -> None:
    """Exempts what is in memory by now, which stays for good, and collects more rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AT, 10, 10)


async def _cancelled(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
