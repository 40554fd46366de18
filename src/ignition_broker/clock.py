"""Time is an argument: no other module of the server reads a clock or sleeps."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from functools import partial
from typing import Protocol


class Clock(Protocol):
    """What the server needs to know of time. Tests hand in a clock of their own."""

    def now(self) -> datetime:
        """The wall clock's time, timezone-aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; the value never decreases."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspends the task for at least ``seconds``."""
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
