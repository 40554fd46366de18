"""A bounded buffer of audit events that were not stored yet.

Calls of one actor, tenant and action are counted in one event. A call that finds the buffer full
waits for room; one that can't be kept is counted as lost. The events that are being stored stay
unchanged until they are, so that a second try can find out which of them the first stored.
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

FLUSH_SIZE = 1_000
"""So many pending events are stored without waiting for the end of the second."""
CAPACITY = 10_000
"""Of pending events. A call that needs another waits for `ROOM_WAIT_SECONDS`, then is lost."""
EXTRA_CAPACITY_FOR_DENIALS = 2_000
"""Only denied calls may use it: an attack must not hide behind other calls."""
ROOM_WAIT_SECONDS = 1.0
"""How long a call waits for room. Once there was none for that long, further calls don't wait."""


@dataclass(slots=True)
class PendingEvent:
    """An event that counts calls until it is stored.

    Attributes:
        tenant: of denied calls None, unless all of them named the same one.
        request_id: the first call's.
        since: when the first call was made.
        route: of denied calls alone.
    """

    actor: str
    tenant: str | None
    action: str
    outcome: str
    request_id: str
    since: datetime
    route: str | None = None
    count: int = 1

    def event(self, until: datetime) -> AuditEvent:
        """The event as it is stored; ``until``: no later call is counted in it."""
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


Window = dict[tuple[str, ...], PendingEvent]
"""Pending events by what their calls have in common."""


@dataclass(slots=True)
class _WaitingCall:
    key: tuple[str, ...]
    pending: PendingEvent
    is_added: asyncio.Future[None]


class EventBuffer:
    """Pending events of the current window, and those that are being stored.

    Args:
        on_lost: called at once with the number of calls that will be missing in the audit trail.

    Attributes:
        taken: the events that are being stored.
        is_flush_due: set while the next flush should not wait any longer.
    """

    def __init__(self, clock: Clock, on_lost: Callable[[int], None]) -> None:
        self._clock = clock
        self._on_lost = on_lost
        self._window: Window = {}
        self._denials: Window = {}
        self._waiting: deque[_WaitingCall] = deque()
        self._full_since: float | None = None
        self._lost = 0
        self._lost_denials = 0
        self.taken: Window = {}
        self.is_flush_due = asyncio.Event()

    def add_call(self, key: tuple[str, str, str], request_id: str) -> Awaitable[None] | None:
        """Counts a call that was allowed.

        Args:
            key: its actor, tenant and action.

        Returns:
            None, or, where the buffer is full, what ends when the call is counted or lost.
        """
        pending = self._window.get(key)
        if pending is not None:
            pending.count += 1
            return None
        pending = PendingEvent(*key, "done", request_id, self._clock.now())
        if self._size < CAPACITY:
            self._add(key, pending)
            return None
        if self._is_waiting_useless():
            self._lose(1)
            return None
        return self._add_when_there_is_room(key, pending)

    def add_denial(self, key: tuple[str, ...], denial: PendingEvent) -> None:
        """Counts a call that was denied; where there is no room, it is lost at once."""
        pending = self._denials.get(key)
        if pending is not None:
            pending.count += 1
            if pending.tenant != denial.tenant:
                pending.tenant = None
        elif self._size >= CAPACITY + EXTRA_CAPACITY_FOR_DENIALS:
            self._lose(1, denials=1)
        else:
            self._denials[key] = denial

    def take(self) -> None:
        """Begins a new window; the events of the old one become ``taken``, denied calls first."""
        self.taken = {**self._denials, **self._window}
        self._denials, self._window = {}, {}
        self.is_flush_due.clear()

    def drop_taken(self, part: Window) -> None:
        """Events of ``taken`` that were stored or lost: calls that wait get their room."""
        for key in part:
            del self.taken[key]
        self._full_since = None
        while self._waiting and self._size < CAPACITY:
            waiting = self._waiting.popleft()
            if waiting.is_added.done():
                # It waited too long, or its caller left.
                continue
            pending = self._window.get(waiting.key)
            if pending is not None:
                pending.count += 1
            else:
                self._add(waiting.key, waiting.pending)
            waiting.is_added.set_result(None)

    def lose(self, window: Window) -> None:
        """Counts the calls of these events as lost."""
        number = sum(pending.count for pending in window.values())
        denials = sum(pending.count for pending in window.values() if pending.route is not None)
        if number:
            self._lose(number, denials=denials)

    def lose_all(self) -> None:
        """Counts what was not stored as lost, when the process ends."""
        self.lose({**self.taken, **self._denials, **self._window})

    def log_losses(self) -> None:
        """Logs what was lost since the last time, if anything was."""
        if self._lost:
            log.error("audit_events_lost", calls=self._lost, denials=self._lost_denials)
            self._lost = self._lost_denials = 0

    @property
    def _size(self) -> int:
        return len(self._window) + len(self._denials) + len(self.taken)

    def _is_waiting_useless(self) -> bool:
        now = self._clock.monotonic()
        if self._full_since is None:
            self._full_since = now
        return now - self._full_since > ROOM_WAIT_SECONDS

    def _add(self, key: tuple[str, ...], pending: PendingEvent) -> None:
        self._window[key] = pending
        if len(self._window) >= FLUSH_SIZE:
            self.is_flush_due.set()

    async def _add_when_there_is_room(self, key: tuple[str, ...], pending: PendingEvent) -> None:
        waiting = _WaitingCall(key, pending, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self.is_flush_due.set()
        try:
            async with asyncio.timeout(ROOM_WAIT_SECONDS):
                await waiting.is_added
        except TimeoutError:
            # It may have been added in the very turn of the loop in which the time ran out.
            if waiting.is_added.cancelled():
                self._lose(1)

    def _lose(self, number: int, *, denials: int = 0) -> None:
        self._lost += number
        self._lost_denials += denials
        self._on_lost(number)
