"""How many calls of one tenant may run at once; further ones wait in a queue."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from ignition_broker.broker.errors import Unavailable
from ignition_broker.grant_ids import quoted

LONGEST_WAIT_SECONDS = 10.0
SHARES = 4
"""A key's share of its tenant's slots is one in so many, and at least one."""


@dataclass(slots=True)
class _Calls:
    """One tenant's calls. ``running`` and ``waiting`` are by API key and hold no empty entries."""

    total: int = 0
    running: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, deque[asyncio.Future[None]]] = field(default_factory=dict)


class TenantConcurrency:
    """A concurrency limit per tenant: a tenant that floods the proxy delays no other tenant.

    ``limit`` calls of a tenant run at once, and as many of each key wait, for at most
    ``longest_wait_seconds``. No API key of a tenant shuts out the others: a key with less than its
    share running does not wait until twice ``limit`` run, and a slot that becomes free goes to the
    key with the fewest running calls, first come first served within the key.
    """

    def __init__(self, limit: int, *, longest_wait_seconds: float = LONGEST_WAIT_SECONDS) -> None:
        self._limit = limit
        self._share = max(1, limit // SHARES)
        self._longest_wait_seconds = longest_wait_seconds
        self._tenants: dict[str, _Calls] = {}

    def try_acquire(self, tenant: str, key: str) -> bool:
        """Takes a slot if one is free. True: it is the caller's until `release`."""
        calls = self._tenants.get(tenant)
        if calls is None:
            calls = self._tenants[tenant] = _Calls()
        held = calls.running.get(key, 0)
        if calls.total >= self._limit and not self._is_within_share(calls, held):
            return False
        calls.running[key] = held + 1
        calls.total += 1
        return True

    async def acquire(self, tenant: str, key: str) -> None:
        """Waits for a slot, which is the caller's until `release`.

        Raises `Unavailable` where the key's queue is full or the wait is too long.
        """
        if self.try_acquire(tenant, key):
            return
        calls = self._tenants[tenant]
        queue = calls.waiting.setdefault(key, deque())
        if len(queue) >= self._limit:
            raise self._refusal(tenant)
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(slot)
        try:
            async with asyncio.timeout(self._longest_wait_seconds):
                await slot
        except BaseException as error:
            if slot.done() and not slot.cancelled():
                self.release(tenant, key)
            elif slot in queue:
                queue.remove(slot)
                if not queue:
                    del calls.waiting[key]
            if isinstance(error, TimeoutError):
                raise self._refusal(tenant) from None
            raise

    def release(self, tenant: str, key: str) -> None:
        """Gives back a slot, to a waiting call if there is one."""
        calls = self._tenants[tenant]
        calls.total -= 1
        held = calls.running[key] - 1
        if held:
            calls.running[key] = held
        else:
            del calls.running[key]
        if calls.waiting:
            self._admit(calls)
        if not calls.total:
            del self._tenants[tenant]

    def _admit(self, calls: _Calls) -> None:
        """Hands free slots to waiting calls."""
        while calls.waiting:
            key = min(calls.waiting, key=lambda each: calls.running.get(each, 0))
            held = calls.running.get(key, 0)
            if calls.total >= self._limit and not self._is_within_share(calls, held):
                return
            queue = calls.waiting[key]
            slot = queue.popleft()
            if not queue:
                del calls.waiting[key]
            if not slot.done():
                calls.running[key] = held + 1
                calls.total += 1
                slot.set_result(None)

    def _is_within_share(self, calls: _Calls, held: int) -> bool:
        return held < self._share and calls.total < 2 * self._limit

    def _refusal(self, tenant: str) -> Unavailable:
        return Unavailable(
            f"Tenant {quoted(tenant)} has {self._limit} calls under way and as many waiting.",
            tenant=tenant,
        )
