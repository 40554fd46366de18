"""The background refresher: renews what falls due before any caller has to wait for it."""

from __future__ import annotations

import asyncio

import structlog

from ignition_broker.broker.audit.verification import prune
from ignition_broker.broker.callers.access import Access
from ignition_broker.broker.errors import BrokerError
from ignition_broker.broker.grants.circuit_breaker import CircuitBreaker, Pause, Permit
from ignition_broker.broker.grants.issue import Issuer
from ignition_broker.broker.grants.leases import LEASE_SECONDS, SEND_MARGIN_SECONDS
from ignition_broker.broker.grants.refresh import Refresher
from ignition_broker.cipher import CipherError
from ignition_broker.clock import Clock
from ignition_broker.model import SealedLease
from ignition_broker.storage import (
    audit_chain,
    authorizations,
    callbacks,
    connect_links,
    sessions,
)
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError
from ignition_broker.storage.listen import count_listeners

log = structlog.get_logger(__name__)

TICK_SECONDS = 1.0
"""How often to look for due grants while none were left over."""
CONCURRENCY = 50
"""Renewals under way at once."""
CATCH_UP_SECONDS = 0.05
"""How late a turn may be and still be made up for."""
HOUSEKEEPING_SECONDS = 10.0


class BackgroundRefresher:
    """Renews due grants at a bounded rate, and does the housekeeping.

    ``rate``: requests a second to the provider; the replicas that listen on the same database share
    it evenly. ``audit_retention_days``: 0 keeps audit events for ever.
    """

    def __init__(
        self,
        database: Database,
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
        """Runs until it is cancelled. Renewals under way then go on; `Refresher.end` waits for
        them."""
        housekeeping_at = 0.0
        while True:
            has_more = False
            try:
                await self._issuer.flush_use()
                await self._access.flush_use()
                if self._clock.monotonic() >= housekeeping_at:
                    housekeeping_at = self._clock.monotonic() + HOUSEKEEPING_SECONDS
                    await self._keep_house()
            except StorageError as error:
                # Renewals are tried all the same: one table that can't be used is no reason to let
                # grants lapse.
                log.warning("housekeeping_postponed", reason=str(error))
            except Exception:
                log.exception("housekeeping_failed")
            try:
                has_more = await self._renew_due()
            except StorageError as error:
                log.warning("renewals_postponed", reason=str(error))
            except Exception:
                # Every grant depends on this loop: it must survive unforeseen errors.
                log.exception("renewals_failed")
            if not has_more:
                await self._clock.sleep(TICK_SECONDS)

    async def _renew_due(self) -> bool:
        """Claims what is due and starts to renew it, at this replica's share of the rate.

        Returns whether more may be due.
        """
        if len(self._under_way) >= CONCURRENCY:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        if self._refresher.is_settling:
            return False
        permit = self._breaker.permit()
        if isinstance(permit, Pause):
            return False
        with permit:
            limit = 1 if self._breaker.is_open else self._most_to_claim()
            waiting = await self._refresher.leases.claim_due(
                limit=limit, besides=self._refresher.requests.tenants()
            )
            has_more = len(waiting) == limit
            try:
                while waiting:
                    task = asyncio.create_task(self._renew(waiting.pop(), permit))
                    self._under_way.add(task)
                    task.add_done_callback(self._under_way.discard)
                    await self._clock.sleep(self._seconds_to_next_turn())
            finally:
                # At a shutdown: these refresh tokens were not sent, so they are not uncertain.
                for lease in waiting:
                    self._refresher.leases.give_back_soon(lease)
        return has_more

    def _most_to_claim(self) -> int:
        """No more than have their turn before their leases would have to be extended."""
        in_time = self._rate / self._replicas * (LEASE_SECONDS - SEND_MARGIN_SECONDS) / 2
        return max(1, min(CONCURRENCY - len(self._under_way), int(in_time)))

    def _seconds_to_next_turn(self) -> float:
        """Counted from turn to turn, because a busy process wakes up late from every sleep.

        A turn that is later than `CATCH_UP_SECONDS` is not made up for: there was nothing due, or
        the process has too much to do.
        """
        now = self._clock.monotonic()
        is_late = now - self._next_turn_at > CATCH_UP_SECONDS
        self._next_turn_at = (now if is_late else self._next_turn_at) + self._replicas / self._rate
        return max(0.0, self._next_turn_at - now)

    async def _renew(self, sealed: SealedLease, permit: Permit) -> None:
        with permit:
            try:
                lease = await self._refresher.leases.opened(sealed)
            except CipherError:
                # It is logged, and the grant is set aside.
                return
            work = self._refresher.use(lease, permit)
            flight = self._refresher.flights.start(lease.tenant, work)
            try:
                await asyncio.shield(flight.task)
            except (BrokerError, StorageError, CipherError) as error:
                log.info("renewal_failed", tenant=lease.tenant, reason=str(error))

    async def _keep_house(self) -> None:
        self._replicas = max(1, await self._database.single(count_listeners))
        await self._database.single(authorizations.clear)
        await self._database.single(connect_links.clear)
        await self._database.single(callbacks.clear)
        await self._database.single(sessions.clear)
        await self._database.single(audit_chain.clear_heads)
        if self._audit_retention_days:
            await prune(self._database, self._audit_retention_days)
