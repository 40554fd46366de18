"""Renews the grants of one OAuth client that fall due, before any caller has to wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from ignition_broker.broker.errors import BrokerError
from ignition_broker.broker.grants.circuit_breaker import CircuitBreaker, Pause, Permit
from ignition_broker.broker.grants.leases import LEASE_SECONDS, SEND_MARGIN_SECONDS
from ignition_broker.broker.grants.refresh import Refresher
from ignition_broker.cipher import CipherError
from ignition_broker.clock import Clock
from ignition_broker.grant_ids import DEFAULT_CLIENT
from ignition_broker.model import SealedLease
from ignition_broker.storage.errors import StorageError

log = structlog.get_logger(__name__)

TICK_SECONDS = 1.0
"""How often to look for due grants while none were left over."""
CONCURRENCY = 50
"""Renewals under way at once."""
CATCH_UP_SECONDS = 0.05
"""How late a turn may be and still be made up for."""
BUSY_SHARE = 0.75
"""A process that uses so much of a core is busy with callers."""
MEASURE_SECONDS = 0.02
"""For how long at least that is measured."""
BUSY_STRETCH = 1.5
"""So much longer a busy process waits for the next turn. A renewal that comes later costs nobody
anything, since it is due well before the token expires; its callers would wait for it."""
BUSY_SECONDS = 0.003
"""A sleep that lasts longer than it should, by this: the event loop has more to do than it can."""
YIELD = 2.5
"""For how many times that delay the next renewal waits then."""
LONGEST_DELAY_SECONDS = 0.02
"""What a longer delay counts as, so that even a process with far too much to do renews twenty
grants a second."""


class DueRenewals:
    """Renews due grants at a bounded rate.

    ``client``: whose grants, and ``breaker`` that client's. ``rate``: requests a second to its
    provider, which the replicas share evenly; ``replicas``: how many there are. ``cpu_seconds``:
    how much time of a core this process has used.
    """

    def __init__(
        self,
        breaker: CircuitBreaker,
        refresher: Refresher,
        clock: Clock,
        *,
        rate: float,
        client: str = DEFAULT_CLIENT,
        cpu_seconds: Callable[[], float] = time.process_time,
    ) -> None:
        self._breaker = breaker
        self._refresher = refresher
        self._clock = clock
        self._rate = rate
        self._client = client
        self.replicas = 1
        self._next_turn_at = 0.0
        self._cpu_seconds = cpu_seconds
        self._cpu_used = 0.0
        self._measured_at = 0.0
        self._is_busy = False
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Runs until it is cancelled. Renewals under way then go on; `Refresher.end` waits for
        them."""
        while True:
            if not await self.renew_some():
                await self._clock.sleep(TICK_SECONDS)

    async def renew_some(self) -> bool:
        """Starts to renew some of what is due. Returns whether more may be due. Errors are
        logged."""
        try:
            return await self._renew_due()
        except StorageError as error:
            log.warning("renewals_postponed", reason=str(error))
        except Exception:
            # Every grant depends on this loop: it must survive unforeseen errors.
            log.exception("renewals_failed")
        return False

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
                limit=limit, besides=self._refresher.requests.tenants(), client=self._client
            )
            has_more = len(waiting) == limit
            try:
                while waiting:
                    task = asyncio.create_task(self._renew(waiting.pop(), permit))
                    self._under_way.add(task)
                    task.add_done_callback(self._under_way.discard)
                    await self._next_turn()
            finally:
                # At a shutdown: these refresh tokens were not sent, so they are not uncertain.
                for lease in waiting:
                    self._refresher.leases.give_back_soon(lease)
        return has_more

    def _most_to_claim(self) -> int:
        """No more than have their turn before their leases would have to be extended."""
        in_time = self._rate / self.replicas * (LEASE_SECONDS - SEND_MARGIN_SECONDS) / 2
        return max(1, min(CONCURRENCY - len(self._under_way), int(in_time)))

    async def _next_turn(self) -> None:
        """Counted from turn to turn, because a busy process wakes up late from every sleep.

        A turn that is later than `CATCH_UP_SECONDS` is not made up for: there was nothing due, or
        the process has too much to do. A process that is busy serves its callers first: a renewal
        costs as much as some forty answers.
        """
        now = self._clock.monotonic()
        is_late = now - self._next_turn_at > CATCH_UP_SECONDS
        self._measure(now)
        between = self.replicas / self._rate * (BUSY_STRETCH if self._is_busy else 1)
        self._next_turn_at = (now if is_late else self._next_turn_at) + between
        pause = max(0.0, self._next_turn_at - now)
        await self._clock.sleep(pause)
        delay = self._clock.monotonic() - now - pause
        if delay > BUSY_SECONDS:
            await self._clock.sleep(YIELD * min(delay, LONGEST_DELAY_SECONDS))
            self._next_turn_at = self._clock.monotonic()

    def _measure(self, now: float) -> None:
        passed = now - self._measured_at
        if passed >= MEASURE_SECONDS:
            used = self._cpu_seconds()
            self._is_busy = used - self._cpu_used > BUSY_SHARE * passed
            self._cpu_used, self._measured_at = used, now

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
