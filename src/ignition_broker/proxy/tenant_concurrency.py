"""How many calls of one tenant may be under way at once; the rest wait in line."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from ignition_broker.broker.errors import Unavailable

LONGEST_WAIT_SECONDS = 10.0
SHARES = 4
"""A key's share of its tenant's places is one in so many, and one at least."""


@dataclass(slots=True)
class _Lane:
    """``running`` and ``waiting`` are by API key, without the keys that have none."""

    total: int = 0
    running: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, deque[asyncio.Future[None]]] = field(default_factory=dict)


class Turns:
    """Per tenant ``at_once`` calls run and as many again wait: a tenant that floods the proxy fills
    its own lane and no other.

    Within a lane no API key shuts out the others. One that has less than its share under way does
    not wait for them, until twice ``at_once`` run; and a place that becomes free goes to the key
    that has the fewest, first come first served among its own.
    """

    def __init__(self, at_once: int, *, longest_wait_seconds: float = LONGEST_WAIT_SECONDS) -> None:
        self._at_once = at_once
        self._share = max(1, at_once // SHARES)
        self._longest_wait_seconds = longest_wait_seconds
        self._lanes: dict[str, _Lane] = {}

    def take_at_once(self, tenant: str, key: str) -> bool:
        """Whether nobody has to be waited for; then it is taken, and to be given back."""
        lane = self._lanes.get(tenant)
        if lane is None:
            lane = self._lanes[tenant] = _Lane()
        held = lane.running.get(key, 0)
        if lane.total >= self._at_once and not self._is_owed(lane, held):
            return False
        lane.running[key] = held + 1
        lane.total += 1
        return True

    async def take(self, tenant: str, key: str) -> None:
        """Raises `Unavailable` where the line is full or does not move; else `give_back`."""
        if self.take_at_once(tenant, key):
            return
        lane = self._lanes[tenant]
        line = lane.waiting.setdefault(key, deque())
        if len(line) >= self._at_once:
            raise self._refusal(tenant)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(turn)
        try:
            async with asyncio.timeout(self._longest_wait_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give_back(tenant, key)
            elif turn in line:
                line.remove(turn)
                if not line:
                    del lane.waiting[key]
            if isinstance(error, TimeoutError):
                raise self._refusal(tenant) from None
            raise

    def give_back(self, tenant: str, key: str) -> None:
        lane = self._lanes[tenant]
        lane.total -= 1
        held = lane.running[key] - 1
        if held:
            lane.running[key] = held
        else:
            del lane.running[key]
        if lane.waiting:
            self._admit(lane)
        if not lane.total:
            del self._lanes[tenant]

    def _admit(self, lane: _Lane) -> None:
        """Whoever may go on now."""
        while lane.waiting:
            key = min(lane.waiting, key=lambda each: lane.running.get(each, 0))
            held = lane.running.get(key, 0)
            if lane.total >= self._at_once and not self._is_owed(lane, held):
                return
            line = lane.waiting[key]
            turn = line.popleft()
            if not line:
                del lane.waiting[key]
            if not turn.done():
                lane.running[key] = held + 1
                lane.total += 1
                turn.set_result(None)

    def _is_owed(self, lane: _Lane, held: int) -> bool:
        return held < self._share and lane.total < 2 * self._at_once

    def _refusal(self, tenant: str) -> Unavailable:
        return Unavailable(
            f"Tenant {tenant!r} has {self._at_once} calls under way and as many waiting.",
            tenant=tenant,
        )
