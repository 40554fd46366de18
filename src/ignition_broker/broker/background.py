"""The background refresher: what falls due is renewed before anybody has to wait for it."""

from __future__ import annotations

import asyncio

import structlog

from ignition_broker.broker.audit.verification import prune
from ignition_broker.broker.callers.access import Access
from ignition_broker.broker.errors import BrokerError
from ignition_broker.broker.grants.circuit_breaker import CircuitBreaker
from ignition_broker.broker.grants.issue import Issuer
from ignition_broker.broker.grants.leases import LEASE_SECONDS, SEND_MARGIN_SECONDS
from ignition_broker.broker.grants.refresh import Refresher
from ignition_broker.cipher import Cipher, CipherError
from ignition_broker.clock import Clock
from ignition_broker.model import SealedLease
from ignition_broker.storage import (
    audit_chain,
    authorizations,
    callbacks,
    connect_links,
    leases,
    sessions,
)
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError
from ignition_broker.storage.listen import count_listeners

log = structlog.get_logger(__name__)

TICK_SECONDS = 1.0
CONCURRENCY = 50
CATCH_UP_SECONDS = 0.05
HOUSEKEEPING_SECONDS = 10.0


class BackgroundRefresher:
    """``rate`` bounds the background requests a second to the provider; the replicas that listen
    on the same database share it evenly. ``audit_retention_days``: 0 keeps events for ever."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        breaker: CircuitBreaker,
        refresher: Refresher,
        issuer: Issuer,
        access: Access,
        clock: Clock,
        *,
        rate: float,
        audit_retention_days: float = 0,
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._breaker = breaker
        self._refresher = refresher
        self._issuer = issuer
        self._access = access
        self._clock = clock
        self._rate = rate
        self._audit_retention_days = audit_retention_days
        self._replicas = 1
        self._next_turn_at = 0.0
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until it is cancelled; what is under way then is for `SingleFlight.wait_all`."""
        keep_house_at = 0.0
        while True:
            has_more = False
            try:
                await self._issuer.flush_use()
                await self._access.flush_use()
                if self._clock.monotonic() >= keep_house_at:
                    keep_house_at = self._clock.monotonic() + HOUSEKEEPING_SECONDS
                    await self._keep_house()
            except StorageError as error:
                # Renewals are tried all the same: a table that housekeeping can't use is no reason
                # to let grants lapse.
                log.warning("housekeeping_postponed", reason=str(error))
            except Exception:
                log.exception("housekeeping_failed")
            try:
                has_more = await self._renew_due()
            except StorageError as error:
                self._breaker.release()
                log.warning("schedule_paused", reason=str(error))
            except Exception:
                # Every grant depends on this loop: it must outlive what nobody thought of.
                log.exception("schedule_failed")
            if not has_more:
                await self._clock.sleep(TICK_SECONDS)

    async def _renew_due(self) -> bool:
        """Claims what is due and begins to renew it, at this replica's share of the rate; whether
        more may be due."""
        if len(self._under_way) >= CONCURRENCY:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        if self._refresher.is_settling or self._breaker.pause() is not None:
            return False
        limit = 1 if self._breaker.is_open else self._most_to_claim()
        waiting = await self._refresher.leases.claim_due(
            limit=limit, besides=self._refresher.requests.tenants()
        )
        if not waiting:
            self._breaker.release()
        has_more = len(waiting) == limit
        try:
            while waiting:
                task = asyncio.create_task(self._renew(waiting.pop()))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
                await self._clock.sleep(self._seconds_to_next_turn())
        finally:
            # At a shutdown: whose turn did not come is as good as before, and not uncertain.
            for lease in waiting:
                self._refresher.give_back(lease)
        return has_more

    def _most_to_claim(self) -> int:
        """No more than have their turn before their lease would have to be extended."""
        in_time = self._rate / self._replicas * (LEASE_SECONDS - SEND_MARGIN_SECONDS) / 2
        return max(1, min(CONCURRENCY - len(self._under_way), int(in_time)))

    def _seconds_to_next_turn(self) -> float:
        """Counted from turn to turn, since a busy process wakes up late from every sleep. What
        is later than `CATCH_UP_SECONDS` is not made up for: nothing was due, or too much to do."""
        now = self._clock.monotonic()
        is_late = now - self._next_turn_at > CATCH_UP_SECONDS
        self._next_turn_at = (now if is_late else self._next_turn_at) + self._replicas / self._rate
        return max(0.0, self._next_turn_at - now)

    async def _renew(self, sealed: SealedLease) -> None:
        try:
            lease = leases.opened(self._cipher, sealed)
        except CipherError as error:
            self._breaker.release()
            await self._set_aside(sealed, error)
            return
        flight = self._refresher.flights.start(lease.tenant, self._refresher.use(lease))
        try:
            await asyncio.shield(flight.task)
        except (BrokerError, StorageError) as error:
            log.info("renewal_failed", tenant=lease.tenant, reason=str(error))

    async def _set_aside(self, lease: SealedLease, error: CipherError) -> None:
        log.warning("grant_unreadable", tenant=lease.tenant, reason=str(error))
        try:
            await self._database.single(lambda c: leases.set_aside(c, lease, error))
        except StorageError as away:
            # Its lease runs out, and it is claimed and set aside anew.
            log.warning("schedule_paused", reason=str(away))

    async def _keep_house(self) -> None:
        self._replicas = max(1, await self._database.single(count_listeners))
        await self._database.single(authorizations.clear)
        await self._database.single(connect_links.clear)
        await self._database.single(callbacks.clear)
        await self._database.single(sessions.clear)
        await self._database.single(audit_chain.clear_heads)
        if self._audit_retention_days:
            await prune(self._database, self._audit_retention_days)
