"""The background refresher: what falls due is renewed before anybody has to wait for it."""

from __future__ import annotations

import asyncio

import structlog

from ignition_broker.broker.access import Access
from ignition_broker.broker.errors import BrokerError
from ignition_broker.broker.issue import Issuer
from ignition_broker.broker.refresh import Refresher
from ignition_broker.cipher import Cipher
from ignition_broker.clock import Clock
from ignition_broker.model import Lease
from ignition_broker.storage import authorizations, connect_links, grants
from ignition_broker.storage.engine import Database
from ignition_broker.storage.errors import StorageError

log = structlog.get_logger(__name__)

TICK_SECONDS = 1.0
BATCH = 50
CLEAR_EVERY_SECONDS = 300.0


class Schedule:
    """``rate`` bounds this replica's background requests a second to the provider."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        refresher: Refresher,
        issuer: Issuer,
        access: Access,
        clock: Clock,
        *,
        rate: float = 400.0,
        concurrency: int = 50,
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._refresher = refresher
        self._issuer = issuer
        self._access = access
        self._clock = clock
        self._rate = rate
        self._free = asyncio.Semaphore(concurrency)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until it is cancelled; what is under way then is for `Refresher.drain`."""
        clear_at = 0.0
        while True:
            claimed = 0
            try:
                await self._issuer.flush_use()
                await self._access.flush_use()
                if self._refresher.may_ask():
                    claimed = await self._renew_due()
                if self._clock.monotonic() >= clear_at:
                    clear_at = self._clock.monotonic() + CLEAR_EVERY_SECONDS
                    await self._database.single(authorizations.clear)
                    await self._database.single(connect_links.clear)
            except StorageError as error:
                log.warning("schedule_paused", reason=str(error))
            if claimed < BATCH:
                await self._clock.sleep(TICK_SECONDS)

    async def _renew_due(self) -> int:
        async with self._free:
            use_before = self._refresher.use_before()
            leases = await self._database.single(
                lambda c: grants.claim_due(
                    c,
                    self._cipher,
                    owner=self._refresher.owner,
                    lease_seconds=self._refresher.lease_seconds,
                    use_before=use_before,
                    limit=BATCH,
                )
            )
        for lease in leases:
            task = asyncio.create_task(self._renew(lease))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await self._clock.sleep(1 / self._rate)
        # The next batch is claimed when this one is through: a lease must not age in a queue.
        if self._tasks:
            await asyncio.wait(self._tasks)
        return len(leases)

    async def _renew(self, lease: Lease) -> None:
        async with self._free:
            flight = self._refresher.fly(lease.tenant, self._refresher.use(lease))
            try:
                await asyncio.shield(flight)
            except (BrokerError, StorageError) as error:
                log.info("renewal_failed", tenant=lease.tenant, reason=str(error))
