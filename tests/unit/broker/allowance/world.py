"""Replicas, a book and a provider that counts, without I/O and on one clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from tests.unit.values import ManualClock

from ignition_broker.broker.allowance.gate import IDLE_SECONDS
from ignition_broker.broker.allowance.holding import HeldKey, Holding, Pass
from ignition_broker.broker.allowance.planning import Plan, planned
from ignition_broker.broker.allowance.reports import Allowance
from ignition_broker.broker.allowance.told_limits import ToldLimits
from ignition_broker.broker.allowance.usage import KeyCount
from ignition_broker.model import Caller
from ignition_broker.storage.allowance import Book, Lease, ReservingKey, Use

OFFSET = 5_000_000.0
"""From the monotonic clock to the database's."""


@dataclass
class Provider:
    """Windows begin with the first call after the last one's end, or by the clock."""

    clock: ManualClock
    calls: int
    seconds: float
    tells: bool = True
    counts: bool = True
    ends_at: float = 0.0
    used: int = 0
    throttled: int = 0
    windows: list[int] = field(default_factory=list)

    def call(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        now = self.clock.at
        if now >= self.ends_at:
            if self.ends_at:
                self.windows.append(self.used)
            self.ends_at, self.used = float(int(now) + self.seconds), 0
        self.used += 1
        headers = [
            (b"x-ratelimit-limit", b"%d" % self.calls),
            (b"x-ratelimit-reset", b"%d" % self.ends_at),
        ]
        if self.used > self.calls:
            self.throttled += 1
            return 429, headers
        if self.tells:
            headers.append((b"x-ratelimit-remaining", b"%d" % (self.calls - self.used)))
        return 200, headers if self.tells else []


class Store:
    """The book, which is written only by who has seen its newest revision."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.window = None
        self.leases: dict[str, Lease] = {}
        self.uses: dict[tuple[str, str], Use] = {}
        self.writes = 0

    def read(self) -> Book:
        now = self.clock.at + OFFSET
        return Book(now, self.window, list(self.leases.values()), list(self.uses.values()))

    def write(self, plan: Plan) -> bool:
        if plan.window.revision != (self.window.revision if self.window else 0):
            return False
        self.writes += 1
        self.window = replace(plan.window, revision=plan.window.revision + 1)
        for name in plan.over:
            self.leases.pop(name, None)
        self.leases[plan.lease.replica] = plan.lease
        for use in plan.uses:
            self.uses[use.replica, use.api_key] = use
        self.uses = {key: use for key, use in self.uses.items() if use.number == plan.window.number}
        return True


class Replica:
    """What `AllowanceGate` does, in one thread."""

    def __init__(self, name: str, store: Store, clock: ManualClock, allowance: Allowance) -> None:
        self.store, self.clock = store, clock
        self.holding = Holding("acme", allowance, name, clock.at)
        self.told = ToldLimits(clock)
        self.reserving: list[ReservingKey] = []

    def report(self, *, is_last: bool = False) -> Plan:
        now = self.clock.at
        is_active = not is_last and now < self.holding.used_at + IDLE_SECONDS
        report = self.holding.report(now, OFFSET, is_active=is_active)
        plan = planned(self.store.read(), report, self.holding.allowance, self.reserving)
        assert self.store.write(plan)
        used = self.holding.used
        self.holding.accept(plan, self.holding.epoch, used, now, OFFSET)
        interval = 1.0 if self.holding.is_tight else self.holding.allowance.lease_seconds / 2
        self.holding.report_at = now + min(interval, self.holding.allowance.seconds / 20)
        return plan

    def tend(self) -> None:
        holding = self.holding
        if (holding.is_dirty or holding.spare) and self.clock.at >= holding.report_at:
            self.report()

    def enter(self, caller: Caller) -> bool:
        now = self.clock.at
        key = self.holding.key(caller, now)
        key.wants(now)
        if self._takes(key, now):
            return True
        if key.closed_until > now:
            return False
        key.waiting += 1
        self.report()
        key.waiting -= 1
        return self._takes(key, now)

    def _takes(self, key: HeldKey, now: float) -> bool:
        return Pass(self.holding, key, "", KeyCount()).take(now, is_wanted=True)

    def answer(self, caller: Caller, epoch: int, status: int, headers) -> None:
        self.told.follow(self.holding, caller.name, epoch, status, headers)

    def call(self, caller: Caller, provider: Provider) -> bool:
        if not self.enter(caller):
            return False
        epoch = self.holding.epoch
        self.answer(caller, epoch, *provider.call())
        return True


def caller(name: str, *, weight: int = 1, reserve: int = 0) -> Caller:
    return Caller(name, frozenset(), ("acme",), allowance_weight=weight, allowance_reserve=reserve)


@dataclass
class World:
    """``paces``: calls a window that each key wants."""

    calls: int = 1000
    seconds: float = 60.0
    size: int = 4
    tells: bool = True

    def __post_init__(self) -> None:
        self.clock = ManualClock(1_700_000_000.25)
        self.allowance = Allowance(self.calls, self.seconds)
        self.provider = Provider(self.clock, self.calls, self.seconds, self.tells)
        self.store = Store(self.clock)
        self.replicas = [
            Replica(f"r{number}", self.store, self.clock, self.allowance)
            for number in range(self.size)
        ]
        self.served: Counter[str] = Counter()
        self.turn = 0

    def run(self, until: float, keys: dict[str, float], *, others: float = 0.0) -> None:
        """Until the clock says so, each key calls so often a window; others pass the broker by."""
        step = 0.01
        due = {
            name: self.clock.at + self.seconds / pace * (index + 1) / len(keys)
            for index, (name, pace) in enumerate(keys.items())
        }
        others_due = self.clock.at
        while self.clock.at < until:
            self.clock.at += step
            for replica in self.replicas:
                replica.tend()
            if others and self.clock.at >= others_due:
                others_due += self.seconds / others
                self.provider.call()
            for name, at in due.items():
                if self.clock.at >= at:
                    due[name] = at + self.seconds / keys[name]
                    self.turn += 1
                    replica = self.replicas[self.turn % len(self.replicas)]
                    if replica.call(caller(name), self.provider):
                        self.served[name] += 1
