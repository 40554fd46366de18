"""Wakes callers who wait for another replica's refresh."""

from __future__ import annotations

import asyncio


class Wakeups:
    """Whoever waits for a tenant's row to change is woken when the change feed names it."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}

    def wake(self, tenant: str) -> None:
        """The tenant's row has changed."""
        event = self._events.pop(tenant, None)
        if event is not None:
            event.set()

    async def wait(self, tenant: str, seconds: float) -> None:
        """Returns when the tenant's row has changed, after ``seconds`` at the latest."""
        event = self._events.setdefault(tenant, asyncio.Event())
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            pass
