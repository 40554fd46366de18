"""Audit events in the making, bounded: who finds no room waits, and what is lost is told.

A window that is taken off to be stored is kept as it is until it was, so that a second try can be
told from the first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from ignition_broker.clock import Clock
from ignition_broker.model import AuditEvent

log = structlog.get_logger(__name__)

FLUSH_NUMBER = 1_000
"""Events in the making that are written without waiting for the end of the second."""
LARGEST_NUMBER_HELD = 10_000
"""Of events in the making; calls that would make another wait for `ROOM_SECONDS`, then are lost."""
ROOM_FOR_DENIALS = 2_000
"""Further events that only denied calls may make: an attack must not hide behind other calls."""
ROOM_SECONDS = 1.0
"""How long a call waits for room. Where none was made for as long, the next calls do not wait."""


@dataclass(slots=True)
class Noted:
    """An event in the making. ``request_id`` and ``since`` are the first call's; ``tenant`` of
    denied calls is None where they did not all name one and the same."""

    actor: str
    tenant: str | None
    action: str
    outcome: str
    request_id: str
    since: datetime
    route: str | None = None
    count: int = 1

    def event(self, until: datetime) -> AuditEvent:
        detail: dict[str, object] = {
            "count": self.count,
            "from": self.since.isoformat(),
            "to": until.isoformat(),
        }
        if self.route is not None:
            detail["route"] = self.route
        return AuditEvent(
            self.action, self.outcome, self.actor, self.tenant, self.request_id, detail
        )


Window = dict[tuple[str, ...], Noted]


@dataclass(slots=True)
class _Waiting:
    """A call that waits for room."""

    key: tuple[str, ...]
    noted: Noted
    is_held: asyncio.Future[None]


class EventBuffer:
    """``taken`` is being stored; ``is_filling`` is set while it should not wait any longer.
    ``on_lost(number)`` is told at once of calls that will not be in the trail."""

    def __init__(self, clock: Clock, on_lost: Callable[[int], None]) -> None:
        self._clock = clock
        self._on_lost = on_lost
        self._window: Window = {}
        self._denials: Window = {}
        self._waiting: deque[_Waiting] = deque()
        self._full_since: float | None = None
        self._lost = 0
        self._lost_denials = 0
        self.taken: Window = {}
        self.is_filling = asyncio.Event()

    def hold(self, key: tuple[str, str, str], request_id: str) -> Awaitable[None] | None:
        """A call that was allowed; ``key``: who, for which tenant, what. What is returned waits
        for room."""
        noted = self._window.get(key)
        if noted is not None:
            noted.count += 1
            return None
        noted = Noted(*key, "done", request_id, self._clock.now())
        if self._held < LARGEST_NUMBER_HELD:
            self._put(key, noted)
            return None
        if self._is_stuck:
            self._lose(1)
            return None
        return self._put_when_there_is_room(key, noted)

    def hold_denial(self, key: tuple[str, ...], denial: Noted) -> None:
        noted = self._denials.get(key)
        if noted is not None:
            noted.count += 1
            if noted.tenant != denial.tenant:
                noted.tenant = None
        elif self._held >= LARGEST_NUMBER_HELD + ROOM_FOR_DENIALS:
            self._lose(1, denials=1)
        else:
            self._denials[key] = denial

    def take(self) -> None:
        """All that is held becomes ``taken``, denied calls first."""
        self.taken = {**self._denials, **self._window}
        self._denials, self._window = {}, {}
        self.is_filling.clear()

    def done_with(self, part: Window) -> None:
        """Of what was taken; makes room for the calls that wait."""
        for key in part:
            del self.taken[key]
        self._make_room()

    @property
    def _held(self) -> int:
        return len(self._window) + len(self._denials) + len(self.taken)

    @property
    def _is_stuck(self) -> bool:
        """Whether waiting for room is of no use."""
        now = self._clock.monotonic()
        if self._full_since is None:
            self._full_since = now
        return now - self._full_since > ROOM_SECONDS

    def _put(self, key: tuple[str, ...], noted: Noted) -> None:
        self._window[key] = noted
        if len(self._window) >= FLUSH_NUMBER:
            self.is_filling.set()

    async def _put_when_there_is_room(self, key: tuple[str, ...], noted: Noted) -> None:
        waiting = _Waiting(key, noted, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self.is_filling.set()
        try:
            async with asyncio.timeout(ROOM_SECONDS):
                await waiting.is_held
        except TimeoutError:
            # Room may have been made in the turn of the loop in which the time ran out.
            if waiting.is_held.cancelled():
                self._lose(1)

    def _make_room(self) -> None:
        """For the calls that wait, the longest waiting first."""
        self._full_since = None
        while self._waiting and self._held < LARGEST_NUMBER_HELD:
            waiting = self._waiting.popleft()
            if waiting.is_held.done():
                # It waited too long, or its caller left.
                continue
            noted = self._window.get(waiting.key)
            if noted is not None:
                noted.count += 1
            else:
                self._put(waiting.key, waiting.noted)
            waiting.is_held.set_result(None)

    def lose_rest(self) -> None:
        """At the end."""
        self.lose({**self.taken, **self._denials, **self._window})

    def lose(self, window: Window) -> None:
        number = sum(noted.count for noted in window.values())
        denials = sum(noted.count for noted in window.values() if noted.route is not None)
        if number:
            self._lose(number, denials=denials)

    def _lose(self, number: int, *, denials: int = 0) -> None:
        self._lost += number
        self._lost_denials += denials
        self._on_lost(number)

    def tell_losses(self) -> None:
        """In the log, what was lost since the last time."""
        if self._lost:
            log.error("audit_events_lost", calls=self._lost, denials=self._lost_denials)
            self._lost = self._lost_denials = 0
