"""How many requests a server is sent at once, and who makes room for others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class NoPlaceFree(Exception):
    """All have been taken for as long as one was waited for."""


class Places:
    """``prompt`` places for requests that are answered in time. One that is not answered within
    ``prompt_seconds`` moves to one of ``late`` places: a few slow answers then keep nobody else
    from asking. While all of those are taken too it keeps its own, so that the sum is bounded."""

    def __init__(self, *, prompt: int, late: int, prompt_seconds: float) -> None:
        self._prompt = asyncio.Semaphore(prompt)
        self._late = late
        self._prompt_seconds = prompt_seconds
        self.late_taken = 0

    @asynccontextmanager
    async def place(self, *, wait_seconds: float) -> AsyncIterator[None]:
        """Held to the end of the block. Raises `NoPlaceFree`."""
        try:
            async with asyncio.timeout(wait_seconds):
                await self._prompt.acquire()
        except TimeoutError:
            raise NoPlaceFree from None
        is_late = False

        def move() -> None:
            nonlocal is_late
            if self.late_taken < self._late:
                is_late = True
                self.late_taken += 1
                self._prompt.release()

        moving = asyncio.get_running_loop().call_later(self._prompt_seconds, move)
        try:
            yield
        finally:
            moving.cancel()
            if is_late:
                self.late_taken -= 1
            else:
                self._prompt.release()
