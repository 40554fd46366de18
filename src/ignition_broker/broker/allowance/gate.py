"""The gate in front of Ignition's API: a call passes if its tenant and its key have one left.

In the common case it takes one of a chunk that this replica holds, in memory. When the chunk runs
low, or news is due, the replica reports to Postgres, where all replicas do, and gets another
(`planning`). Without Postgres it goes on within a part of what was left (`Holding.go_alone`).

Over 250 lines: a call, its report and its wait share the state of one tenant's holding.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Sequence

import structlog

from ignition_broker.broker.allowance.holding import ALONE_SECONDS, HeldKey, Holding, Pass
from ignition_broker.broker.allowance.overview import AllowanceUse, allowance_use
from ignition_broker.broker.allowance.planning import planned
from ignition_broker.broker.allowance.reports import Allowance
from ignition_broker.broker.allowance.told_limits import TOO_MANY_REQUESTS, ToldLimits
from ignition_broker.broker.allowance.usage import AllowanceCounts
from ignition_broker.broker.errors import AllowanceSpent
from ignition_broker.clock import Clock
from ignition_broker.grant_ids import quoted, tenant_of
from ignition_broker.model import Caller
from ignition_broker.outbound.upstream import UpstreamAnswer
from ignition_broker.storage import allowance as storage
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError
from ignition_broker.tenant_patterns import TenantPatterns

log = structlog.get_logger(__name__)

LONGEST_WAIT_SECONDS = 3600
PASSING_WAIT_SECONDS = 2.0
"""A caller waits so long, unasked, for calls that another replica holds and may not need."""
REPORT_PATIENCE_SECONDS = 1.0
TICK_SECONDS = 0.25
IDLE_SECONDS = 2.0
RESERVES_KEPT_SECONDS = 10.0
MOST_TRIES = 50
MOST_REPORTS_AT_ONCE = 4
SHUTDOWN_SECONDS = 2.0


class AllowanceGate:
    """Shares each tenant's calls among API keys, over all replicas.

    ``replica``: this process's name, which no other has. ``allowance_of``: a tenant's allowance;
    None where its calls are not counted.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        replica: str,
        allowance_of: Callable[[str], Allowance | None],
    ) -> None:
        self._database = database
        self._clock = clock
        self.monotonic = clock.monotonic
        self._replica = replica
        self._allowance_of = allowance_of
        self._told = ToldLimits(clock)
        self._holdings: dict[str, Holding] = {}
        self._made = 0
        self._reports: dict[str, asyncio.Task[None]] = {}
        self._reserving: Sequence[storage.ReservingKey] = ()
        self._reserving_until = -math.inf
        self.counts = AllowanceCounts()

    def try_enter(self, tenant: str, caller: Caller) -> Pass | None:
        """Takes one call of the tenant for the caller's key from what is held here; None where
        only `enter` can tell."""
        entered = self.open_pass(tenant, caller)
        return entered if entered is not None and entered.take(self.monotonic()) else None

    def open_pass(self, tenant: str, caller: Caller) -> Pass | None:
        """What is likely to take a call, by `Pass.take`; None where there is no room."""
        holding = self._holdings.get(tenant)
        if holding is None:
            return None
        key = holding.keys.get(caller.name)
        if key is None or holding.spare <= 0 or key.used >= key.may_use:
            return None
        return key.pass_ or self._pass(holding, key, caller.name)

    def is_counted(self, tenant: str) -> bool:
        """Whether the tenant's calls are counted, if it has a grant."""
        return self._allowance_of(tenant) is not None

    async def enter(self, tenant: str, caller: Caller, wait_seconds: float = 0.0) -> Pass | None:
        """Takes one call of the tenant for the caller's key; None where they are not counted.

        Waits for at most ``wait_seconds`` while there is none. Raises `AllowanceSpent`, which says
        when it is worth asking again.
        """
        now = self._clock.monotonic()
        holding = self._holdings.get(tenant)
        if holding is None:
            allowance = self._allowance_of(tenant)
            if allowance is None:
                return None
            self._made += 1
            name = f"{self._replica}.{self._made}"
            holding = self._holdings[tenant] = Holding(tenant, allowance, name, now)
        key = holding.key(caller, now)
        entered = self._pass(holding, key, caller.name)
        if entered.take(now):
            return entered
        key.wants(now)
        return await self._wait(holding, key, caller.name, now, wait_seconds)

    def answered(self, entered: Pass, answer: UpstreamAnswer) -> tuple[int, int]:
        """The call was answered.

        Returns how many calls the key has left, as far as it is known here, and in how many whole
        seconds the window ends.
        """
        entered.count.sent += 1
        holding, key = entered.holding, entered.key
        if answer.tells_limit or answer.status == TOO_MANY_REQUESTS:
            self._told.follow(holding, entered.name, entered.epoch, answer.status, answer.headers)
        elif entered.epoch == holding.epoch:
            # As `Holding.answered`, without a call of its own.
            holding.in_flight -= 1
            holding.is_dirty = True
        else:
            holding.answered(entered.name, entered.epoch)
        seconds = holding.ends_at - self.monotonic()
        remaining = key.in_all - key.used
        return remaining if remaining > 0 else 0, math.ceil(seconds) if seconds > 0 else 0

    def gone(self, entered: Pass) -> None:
        """The call was sent and has no answer; Ignition may have counted it."""
        entered.count.sent += 1
        entered.holding.answered(entered.name, entered.epoch)

    def give_back(self, entered: Pass) -> None:
        """The call was not sent."""
        entered.holding.give_back(entered.name, entered.epoch)

    async def use(self, tenant: str) -> AllowanceUse | None:
        """What was used of the tenant's window, by key; None where its calls are not counted.

        Raises `StorageError`.
        """
        allowance = self._allowance_of(tenant)
        if allowance is None:
            return None
        holding = self._holdings.get(tenant)
        if holding is not None and holding.is_dirty:
            await self._news(holding)
        book = await self._database.once(lambda c: storage.read(c, tenant))
        return allowance_use(book, allowance)

    async def run(self) -> None:
        """Reports at intervals, until it is cancelled; gives back what is not needed."""
        while True:
            await self._clock.sleep(TICK_SECONDS)
            now = self._clock.monotonic()
            for tenant, holding in list(self._holdings.items()):
                self._tend(tenant, holding, now)

    async def close(self) -> None:
        """Gives back all that is held."""
        held = [each for each in self._holdings.values() if each.spare or each.is_dirty]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_SECONDS):
                await asyncio.gather(*(self._report_once(each, is_last=True) for each in held))

    def _pass(self, holding: Holding, key: HeldKey, name: str) -> Pass:
        if key.pass_ is None:
            key.pass_ = Pass(holding, key, name, self.counts.of(name))
        return key.pass_

    def _tend(self, tenant: str, holding: Holding, now: float) -> None:
        is_over = now >= holding.ends_at + holding.allowance.turn_margin_seconds
        is_quiet = not (holding.in_flight or holding.carried)
        if is_over and is_quiet and not any(key.waiting for key in holding.keys.values()):
            if now >= holding.used_at + IDLE_SECONDS and tenant not in self._reports:
                del self._holdings[tenant]
            return
        is_due = (holding.is_dirty or holding.spare) and now >= holding.report_at
        if is_due and len(self._reports) < MOST_REPORTS_AT_ONCE and now >= holding.try_again_at:
            self._reporting(holding)

    async def _wait(
        self, holding: Holding, key: HeldKey, name: str, now: float, wait_seconds: float
    ) -> Pass | None:
        """The pass by which a call was taken; None where they are not counted after all."""
        give_up_at = now + wait_seconds
        unasked_until = now + max(wait_seconds, PASSING_WAIT_SECONDS)
        key.waiting += 1
        try:
            while True:
                if key.closed_until <= now:
                    await self._news(holding)
                    now = self._clock.monotonic()
                    entered = self._pass(holding, key, name)
                    if entered.take(now, is_wanted=True):
                        return entered
                    if not holding.is_counted:
                        return None
                    if key.closed_until <= now:
                        continue  # Other callers were faster; there is more.
                until = unasked_until if key.is_passing else give_up_at
                if now >= until:
                    self.counts.of(name).refused += 1
                    raise self._refusal(holding, key, name, now)
                wake_at = max(min(key.closed_until, until), now + 0.005)
                await self._clock.sleep(wake_at - now)
                now = self._clock.monotonic()
                entered = self._pass(holding, key, name)
                if entered.take(now, is_wanted=True):
                    return entered
        finally:
            key.waiting -= 1

    def _refusal(self, holding: Holding, key: HeldKey, name: str, now: float) -> AllowanceSpent:
        whole = holding.allowance
        return AllowanceSpent(
            f"The API key {name!r} has no call left of the {whole.calls} in {whole.seconds:g} s "
            f"that tenant {quoted(holding.tenant)} has at Ignition.",
            tenant=holding.tenant,
            retry_after_seconds=key.retry_at - now,
            reset_seconds=max(math.ceil(holding.ends_at - now), 0),
        )

    async def _news(self, holding: Holding) -> None:
        """Waits for a report's answer, or goes on without it."""
        if self._clock.monotonic() >= holding.try_again_at:
            try:
                async with asyncio.timeout(REPORT_PATIENCE_SECONDS):
                    await asyncio.shield(self._reporting(holding))
            except TimeoutError:
                self._lost_touch(holding)
        else:
            holding.go_alone(self._clock.monotonic())

    def _reporting(self, holding: Holding) -> asyncio.Task[None]:
        """The report that is under way, or a new one."""
        task = self._reports.get(holding.tenant)
        if task is None or task.done():
            task = asyncio.create_task(self._report(holding))
            self._reports[holding.tenant] = task
            task.add_done_callback(lambda done: self._forget(holding.tenant, done))
        return task

    def _forget(self, tenant: str, task: asyncio.Task[None]) -> None:
        if self._reports.get(tenant) is task:
            del self._reports[tenant]

    async def _report(self, holding: Holding) -> None:
        try:
            await self._report_once(holding)
        except (StorageError, TimeoutError) as error:
            log.warning("allowance_not_reported", tenant=holding.tenant, reason=str(error))
            self._lost_touch(holding)
        except Exception:
            log.exception("allowance_failed", tenant=holding.tenant)
            self._lost_touch(holding)

    def _lost_touch(self, holding: Holding) -> None:
        now = self._clock.monotonic()
        holding.try_again_at = now + ALONE_SECONDS
        holding.go_alone(now)

    async def _report_once(self, holding: Holding, *, is_last: bool = False) -> None:
        """Reports until nobody else has written meanwhile."""
        reserving = await self._reserving_at(holding.tenant)
        for _try in range(MOST_TRIES):
            asked_at = self._clock.monotonic()
            book = await self._database.once(lambda c: storage.read(c, holding.tenant))
            if not book.has_grant:
                # Whoever calls is told so by the token's look-up; nothing is stored.
                self._holdings.pop(holding.tenant, None)
                holding.is_counted = False
                return
            now = self._clock.monotonic()
            offset = book.now - asked_at
            is_active = not is_last and now < holding.used_at + IDLE_SECONDS
            plan = planned(
                book,
                holding.report(now, offset, is_active=is_active),
                holding.allowance,
                reserving,
            )
            epoch, used, held = holding.epoch, holding.used, holding.spare
            # Calls that were taken now would be in neither count.
            holding.spare = 0
            holding.is_dirty = False
            try:
                is_written = await self._database.single(
                    lambda c, plan=plan: storage.write(  # type: ignore[misc]
                        c, holding.tenant, plan.window, plan.lease, plan.uses, plan.over
                    )
                )
            except BaseException:
                holding.spare, holding.is_dirty = min(held, plan.lease.spare), True
                raise
            if is_written:
                now = self._clock.monotonic()
                holding.accept(plan, epoch, used, now, offset)
                holding.report_at = now + self._interval(holding)
                return
            holding.spare, holding.is_dirty = held, True
        raise TimeoutError("other replicas were always faster")

    def _interval(self, holding: Holding) -> float:
        """Seconds to the next report: at most half of the lease."""
        if holding.is_tight:
            return min(1.0, holding.allowance.seconds / 20)
        return holding.allowance.lease_seconds / 2

    async def _reserving_at(self, tenant: str) -> Sequence[storage.ReservingKey]:
        now = self._clock.monotonic()
        if now >= self._reserving_until:
            self._reserving = await self._database.once(storage.reserving_keys)
            self._reserving_until = now + RESERVES_KEPT_SECONDS
        name = tenant_of(tenant)
        return [key for key in self._reserving if TenantPatterns(key.tenants).cover(name)]
