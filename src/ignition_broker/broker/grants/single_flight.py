"""Single flight: callers of one process who ask for the same tenant share one piece of work."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ignition_broker.deadlines import is_done_within

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Flight(Generic[Result]):
    """One piece of shared work, and what the caller who started it asked for.

    ``must_renew``: the current token won't do for that caller, however long it lives.
    ``min_ttl_seconds``: how long that caller wants the token to live.
    """

    task: asyncio.Task[Result]
    must_renew: bool
    min_ttl_seconds: float


class SingleFlight(Generic[Result]):
    """At most one flight a tenant can be joined. A flight goes on when its callers have gone."""

    def __init__(self) -> None:
        self._current: dict[str, Flight[Result]] = {}
        self._running: set[asyncio.Task[Result]] = set()

    def __contains__(self, tenant: str) -> bool:
        return tenant in self._current

    def current(self, tenant: str) -> Flight[Result] | None:
        """The flight to join; None where there is none.

        A flight whose task is done is not joined, even before its callbacks have run: a caller
        whom its result does not satisfy would join it again and again without ever yielding.
        """
        flight = self._current.get(tenant)
        return None if flight is None or flight.task.done() else flight

    def start(
        self,
        tenant: str,
        work: Coroutine[Any, Any, Result],
        *,
        must_renew: bool = True,
        min_ttl_seconds: float = 0.0,
    ) -> Flight[Result]:
        """Starts ``work`` as the flight that callers of ``tenant`` join from now on."""
        flight = Flight(asyncio.create_task(work), must_renew, min_ttl_seconds)
        self._current[tenant] = flight
        self._running.add(flight.task)

        def done(task: asyncio.Task[Result]) -> None:
            self._running.discard(task)
            if self._current.get(tenant) is flight:
                del self._current[tenant]
            if not task.cancelled():
                # Retrieved, since asyncio logs an exception that no waiting caller retrieved.
                task.exception()

        flight.task.add_done_callback(done)
        return flight

    async def wait_all(self, seconds: float) -> None:
        """Waits until everything that runs has ended, for at most ``seconds``."""
        if self._running:
            all_done = asyncio.gather(*self._running, return_exceptions=True)
            await is_done_within(all_done, seconds)
