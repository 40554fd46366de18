"""Which rows the repair sweep is to look at next."""

from __future__ import annotations

import asyncio


class RepairQueue:
    """``to_check``: tenants whose rows were found or notified to be behind. ``to_compare``: tenants
    to look at after those, the last one first. ``is_full``: look at everything that is remembered.
    """

    def __init__(self) -> None:
        self.to_check: set[str] = set()
        self.to_compare: list[str] = []
        self.is_full = False
        self._filled = asyncio.Event()

    def check(self, tenant: str) -> None:
        """Queues a tenant's row without waking the sweep: it was looked at just now."""
        self.to_check.add(tenant)

    def check_now(self, tenant: str) -> None:
        """Queues a tenant's row and wakes the sweep."""
        self.to_check.add(tenant)
        self.wake()

    def wake(self) -> None:
        """Lets the sweep begin at once."""
        self._filled.set()

    async def wait(self, seconds: float) -> None:
        """Returns when the sweep is to begin, after ``seconds`` at the latest."""
        try:
            async with asyncio.timeout(seconds):
                await self._filled.wait()
        except TimeoutError:
            pass
        self._filled.clear()
