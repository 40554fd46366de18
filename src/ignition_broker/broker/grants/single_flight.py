"""Single flight: in one process, the callers of one tenant share one refresh."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ignition_broker.deadlines import is_done_within

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Flight(Generic[Result]):
    """``insists``: it was begun for somebody whom the current token can't satisfy at all.
    ``min_ttl_seconds``: for how long that one wants the token to live."""

    task: asyncio.Task[Result]
    insists: bool
    min_ttl_seconds: float


class Flights(Generic[Result]):
    """A caller that goes away leaves its flight in the air; `land_all` waits for every one."""

    def __init__(self) -> None:
        self._current: dict[str, Flight[Result]] = {}
        self._in_the_air: set[asyncio.Task[Result]] = set()

    def __contains__(self, tenant: str) -> bool:
        return tenant in self._current

    def current(self, tenant: str) -> Flight[Result] | None:
        """The one to join. One that has ended is not, though its callbacks have yet to run:
        whoever it can't content would join it again and again, and give way to nobody."""
        flight = self._current.get(tenant)
        return None if flight is None or flight.task.done() else flight

    def start(
        self,
        tenant: str,
        work: Coroutine[Any, Any, Result],
        *,
        insists: bool = True,
        min_ttl_seconds: float = 0.0,
    ) -> Flight[Result]:
        """Makes ``work`` the flight that callers of ``tenant`` join from now on."""
        flight = Flight(asyncio.create_task(work), insists, min_ttl_seconds)
        self._current[tenant] = flight
        self._in_the_air.add(flight.task)

        def landed(task: asyncio.Task[Result]) -> None:
            self._in_the_air.discard(task)
            if self._current.get(tenant) is flight:
                del self._current[tenant]
            if not task.cancelled():
                # Whoever waits sees it; where nobody does, asyncio is not to complain.
                task.exception()

        flight.task.add_done_callback(landed)
        return flight

    async def land_all(self, seconds: float) -> None:
        """Lets what is under way end, for at most ``seconds``."""
        if self._in_the_air:
            landing = asyncio.gather(*self._in_the_air, return_exceptions=True)
            await is_done_within(landing, seconds)
