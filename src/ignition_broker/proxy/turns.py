"""How many calls of one tenant may be under way at once; the rest wait in line."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from ignition_broker.broker.errors import Unavailable

LONGEST_WAIT_SECONDS = 10.0


@dataclass(slots=True)
class _Lane:
    running: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class Turns:
    """Per tenant ``at_once`` calls run and as many again wait, first come first served: a tenant
    that floods the proxy fills its own lane and no other."""

    def __init__(self, at_once: int, *, longest_wait_seconds: float = LONGEST_WAIT_SECONDS) -> None:
        self._at_once = at_once
        self._longest_wait_seconds = longest_wait_seconds
        self._lanes: dict[str, _Lane] = {}

    def take_at_once(self, tenant: str) -> bool:
        """Whether nobody has to be waited for; then it is taken, and to be given back."""
        lane = self._lanes.get(tenant)
        if lane is None:
            lane = self._lanes[tenant] = _Lane()
        elif lane.running >= self._at_once:
            return False
        lane.running += 1
        return True

    async def take(self, tenant: str) -> None:
        """Raises `Unavailable` where the line is full or does not move; else `give_back`."""
        if self.take_at_once(tenant):
            return
        lane = self._lanes[tenant]
        if len(lane.waiting) >= self._at_once:
            raise self._refusal(tenant)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lane.waiting.append(turn)
        try:
            async with asyncio.timeout(self._longest_wait_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give_back(tenant)
            elif turn in lane.waiting:
                lane.waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise self._refusal(tenant) from None
            raise

    def give_back(self, tenant: str) -> None:
        lane = self._lanes[tenant]
        while lane.waiting:
            turn = lane.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        lane.running -= 1
        if lane.running == 0:
            del self._lanes[tenant]

    def _refusal(self, tenant: str) -> Unavailable:
        return Unavailable(
            f"Tenant {tenant!r} has {self._at_once} calls under way and as many waiting.",
            tenant=tenant,
        )
