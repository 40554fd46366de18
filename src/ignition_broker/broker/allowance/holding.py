"""What this replica holds of one tenant's calls, and what it has used. Without I/O.

Moments are on this process's monotonic clock, where nothing else is said.

Over 250 lines: all that changes one holding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ignition_broker.broker.allowance.planning import NEW_KEY, Plan
from ignition_broker.broker.allowance.reports import Allowance, Heard, KeyReport, Report, Standing
from ignition_broker.broker.allowance.usage import KeyCount
from ignition_broker.model import Caller

ALONE_SECONDS = 1.0
"""How long this replica goes on by itself before it tries Postgres again."""
ALONE_DIVISOR = 2
UNKNOWN_REPLICAS = 4
_CLOSED_SECONDS = 1.0
_NEVER = -math.inf


@dataclass(slots=True)
class HeldKey:
    """One key's calls in the window. It may use ``may_use`` in all before the next report;
    ``in_all`` is what it could reach. Until ``closed_until`` it is refused without a look."""

    weight: int
    reserve: int
    first_at: float
    last_at: float
    used: int = 0
    wanted: int = 0
    waiting: int = 0
    may_use: int = 0
    in_all: int = 0
    closed_until: float = _NEVER
    retry_at: float = _NEVER
    is_passing: bool = False
    pass_: Pass | None = None
    """What its calls of this window are taken by, once one was."""

    def stand(self, standing: Standing, now: float, retry_at: float) -> None:
        """Takes over how it stands."""
        self.may_use = self.used + standing.here
        self.in_all = self.used + standing.headroom
        self.retry_at, self.is_passing = retry_at, standing.is_passing
        self.closed_until = _NEVER
        if not standing.here:
            self.closed_until = min(retry_at, now + _CLOSED_SECONDS)

    def wants(self, now: float) -> None:
        """A call is wanted that can't be taken now."""
        self.wanted += 1
        self.last_at = now

    def begin_window(self, now: float) -> None:
        """Its calls of the window before no longer count; its waiting callers want calls of this
        one."""
        self.used = self.may_use = 0
        self.wanted = self.waiting
        self.first_at = self.last_at = now
        self.closed_until = _NEVER
        self.pass_ = None


class Pass:
    """One key's way to a tenant's calls in one window, and the proof of each that it took.

    All calls of the key in the window share it. Each that was taken ends by one of
    `AllowanceGate.answered`, `AllowanceGate.gone` and `AllowanceGate.give_back`.
    """

    __slots__ = ("count", "epoch", "holding", "key", "name")

    def __init__(self, holding: Holding, key: HeldKey, name: str, count: KeyCount) -> None:
        self.holding = holding
        self.key = key
        self.name = name
        self.count = count
        self.epoch = holding.epoch

    def take(self, now: float, *, is_wanted: bool = False) -> bool:
        """Takes a call, if the window still runs and the key may make one without a report.

        ``is_wanted``: it is one that `HeldKey.wants` was told of.
        """
        holding, key = self.holding, self.key
        if (
            holding.spare <= 0
            or key.used >= key.may_use
            or now >= holding.usable_until
            or self.epoch != holding.epoch
        ):
            return False
        if not is_wanted:
            key.wanted += 1
            key.last_at = now
        holding.spare -= 1
        key.used += 1
        holding.in_flight += 1
        holding.used_at = now
        holding.is_dirty = True
        return True


class Holding:
    """One tenant's calls at this replica. ``replica``: a name that no other holding has."""

    def __init__(self, tenant: str, allowance: Allowance, replica: str, now: float) -> None:
        self.tenant = tenant
        self.allowance = allowance
        self.replica = replica
        self.keys: dict[str, HeldKey] = {}
        self.is_counted = True
        self.number = 0
        self.has_turned = False
        self.epoch = 0
        """Changes with the window; a call that began in another is a carried one."""
        self.spare = 0
        self.usable_until = _NEVER
        self.in_flight = 0
        self.carried = 0
        self.calls = allowance.calls
        self.ends_at = now + allowance.seconds
        self.end_is_told = False
        self.counted: int | None = None
        self.heard_at = _NEVER
        self.spent_until: float | None = None
        self.outstanding = 0
        self.remaining = allowance.calls
        self.replicas = UNKNOWN_REPLICAS
        self.is_tight = False
        self.is_dirty = False
        self.used_at = now
        self.report_at = now
        self.alone_left: int | None = None
        self._used_at_report = 0
        self.try_again_at = _NEVER
        self._for_new_keys = Standing(0, 0, now)

    def key(self, caller: Caller, now: float) -> HeldKey:
        """The caller's key, which may be new here."""
        key = self.keys.get(caller.name)
        if key is None:
            key = self.keys[caller.name] = HeldKey(
                caller.allowance_weight, caller.allowance_reserve, now, now
            )
            if self._for_new_keys.here:
                key.stand(self._for_new_keys, now, now)
        else:
            key.weight, key.reserve = caller.allowance_weight, caller.allowance_reserve
        return key

    def give_back(self, name: str, epoch: int) -> None:
        """A call that was taken was not sent."""
        if epoch != self.epoch:
            self.carried -= 1
            return
        self.in_flight -= 1
        self.keys[name].used -= 1
        self.spare += 1
        self.is_dirty = True

    def answered(self, name: str, epoch: int, *, is_counted_before: bool = False) -> None:
        """A call that was sent was answered, or never will be. ``is_counted_before``: Ignition
        counted it in the window before."""
        self.is_dirty = True
        if epoch == self.epoch:
            self.in_flight -= 1
            if is_counted_before:
                self.keys[name].used -= 1
            return
        self.carried -= 1
        key = self.keys.get(name)
        if key is not None and not is_counted_before:
            key.used += 1

    def turn(self, now: float) -> None:
        """Another window has begun."""
        self.epoch += 1
        self.carried += self.in_flight
        self.in_flight = 0
        self.counted = self.spent_until = None
        self.end_is_told = False
        self.calls = self.allowance.calls
        self.keys = {
            name: key for name, key in self.keys.items() if key.waiting or key.used or self.carried
        }
        for key in self.keys.values():
            key.begin_window(now)

    def report(self, now: float, offset: float, *, is_active: bool) -> Report:
        """What there is to say. ``offset``: from the monotonic clock to the database's."""
        ends_at = self.ends_at + offset if self.end_is_told else None
        spent_until = None if self.spent_until is None else self.spent_until + offset
        heard = None
        if self.heard_at > _NEVER:
            calls = self.calls if self.counted is not None else None
            heard = Heard(self.heard_at + offset, self.counted, calls, ends_at, spent_until)
        return Report(
            replica=self.replica,
            number=self.number,
            has_turned=self.has_turned,
            in_flight=self.in_flight,
            carried=self.carried,
            is_active=is_active,
            heard=heard,
            keys={
                name: KeyReport(
                    key.used,
                    key.wanted,
                    key.first_at + offset,
                    key.last_at + offset,
                    key.waiting,
                    key.weight,
                    key.reserve,
                )
                for name, key in self.keys.items()
            },
        )

    @property
    def used(self) -> int:
        return sum(key.used for key in self.keys.values())

    def accept(self, plan: Plan, epoch: int, used: int, now: float, offset: float) -> None:
        """Takes over a plan that is stored. ``epoch`` and ``used``: as they were reported."""
        window = plan.window
        if epoch == self.epoch:
            if not plan.is_about_report:
                self.turn(now)
                self.heard_at = _NEVER
                used = 0
            self.has_turned = False
            self.ends_at = window.ends_at - offset
            self.end_is_told = window.end_is_told
            self.calls = window.calls
            self.spent_until = None if window.spent_until is None else window.spent_until - offset
        self.number = window.number
        self.alone_left = None
        self.try_again_at = _NEVER
        self.spare = max(plan.lease.spare - max(self.used - used, 0), 0)
        self.usable_until = min(
            plan.lease.lease_until - offset,
            self.ends_at + self.allowance.turn_margin_seconds,
        )
        self._used_at_report = self.used
        self.outstanding, self.remaining = plan.outstanding, plan.remaining
        self.replicas, self.is_tight = plan.replicas, plan.is_tight
        self._for_new_keys = plan.standings[NEW_KEY]
        for name, key in self.keys.items():
            standing = plan.standings.get(name)
            if standing is None:
                key.may_use = key.used
            else:
                key.stand(standing, now, standing.retry_at - offset)

    def go_alone(self, now: float) -> None:
        """Goes on without Postgres, within a part of what was left: others may do the same, and
        those who still reach Postgres share the whole among them."""
        if now >= self.ends_at + self.allowance.turn_margin_seconds:
            self.turn(now)
            self.has_turned = True
            self.heard_at = _NEVER
            self.ends_at = now + self.allowance.seconds
            self.alone_left = self.spare = 0
            self.remaining, self._used_at_report = self.calls, 0
            self.alone_left = None
        if self.alone_left is None:
            known = self.remaining - (self.used - self._used_at_report)
            self.alone_left = known // (ALONE_DIVISOR * self.replicas)
            self.spare = min(self.spare, self.alone_left)
            self.alone_left -= self.spare
        left = self.alone_left + self.spare
        if self.counted is not None:
            left = min(left, max(self.calls - self.counted, 0) // ALONE_DIVISOR)
        if self.spent_until is not None and now < self.spent_until:
            left = 0
        self.spare = min(left, self.allowance.chunk)
        self.alone_left = left - self.spare
        self.usable_until = now + ALONE_SECONDS
        asking = [key for key in self.keys.values() if key.waiting or key.used]
        here = max(1, self.spare // max(len(asking), 1)) if self.spare else 0
        turn = self.ends_at + self.allowance.turn_margin_seconds
        self._for_new_keys = Standing(left, here, now)
        for key in asking:
            key.stand(Standing(left, here, turn), now, turn if not self.spare else now)
        self.is_dirty = True
