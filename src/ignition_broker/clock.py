"""Time as an argument: nothing else in the server reads a clock or sleeps."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from functools import partial
from typing import Protocol


class Clock(Protocol):
    """What the server needs of time; a test hands in its own."""

    def now(self) -> datetime:
        """The wall clock, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary point, never going back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Give way for at least ``seconds``."""
        ...


# Tokens age while a machine is suspended, which Linux's CLOCK_MONOTONIC does not count.
_elapsed = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else time.monotonic
)


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    monotonic = staticmethod(_elapsed)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
