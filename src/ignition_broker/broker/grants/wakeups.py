"""Waiting for what another replica does."""

from __future__ import annotations

import asyncio


class Notices:
    """Wakes those who wait for another replica's refresh."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}

    def ring(self, tenant: str) -> None:
        event = self._events.pop(tenant, None)
        if event is not None:
            event.set()

    async def wait(self, tenant: str, seconds: float) -> None:
        """Until the tenant's row changed, at most ``seconds``."""
        event = self._events.setdefault(tenant, asyncio.Event())
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            pass
