"""An event loop per replica, on simulated time: it runs what is ready when it is told to."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable
from contextvars import Context
from datetime import UTC, datetime
from typing import Any

MOST_TURNS_AT_ONCE = 20_000


class SimulatedLoop(asyncio.AbstractEventLoop):
    """Just what tasks, futures, `asyncio.timeout` and `asyncio.sleep` ask of a loop.

    A turn begins with the timers that are due and ends with what has arrived, as libuv's does: a
    process that was stopped sees its deadlines ahead of what lies in its sockets. A replica that is
    stopped is one whose loop is not run; one that is killed is never run again.
    """

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._ready: deque[asyncio.Handle] = deque()
        self._arrived: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = itertools.count()
        self.tasks: list[asyncio.Task[Any]] = []

    def run_ready(self) -> None:
        """Until nothing is left to do at this moment."""
        asyncio._set_running_loop(self)
        try:
            for _ in range(MOST_TURNS_AT_ONCE):
                self._take_due_timers()
                if not self._ready and not self._arrived:
                    return
                for _ in range(len(self._ready)):
                    handle = self._ready.popleft()
                    if not handle.cancelled():
                        handle._run()
                for _ in range(len(self._arrived)):
                    self._arrived.popleft()()
        finally:
            asyncio._set_running_loop(None)
        raise RuntimeError("a replica spins without end")

    def arrive(self, take: Callable[[], None]) -> None:
        """Something lies in a socket; ``take`` is called when the loop looks at it."""
        self._arrived.append(take)

    @property
    def has_seen_all(self) -> bool:
        return not self._arrived

    def next_timer(self) -> float | None:
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _take_due_timers(self) -> None:
        while (due := self.next_timer()) is not None and due <= self._time():
            self._ready.append(heapq.heappop(self._timers)[2])

    def cancel_all(self) -> None:
        """At the end of an example, so that nothing is left for the garbage collector to close."""
        for task in self.tasks:
            task.cancel()
        self.run_ready()

    def time(self) -> float:
        return self._time()

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> Any:
        task = asyncio.Task(coro, loop=self, name=name)
        self.tasks.append(task)
        task.add_done_callback(self.tasks.remove)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        pass


class SimulatedClock:
    """A replica's clocks: the monotonic one began somewhere, the wall clock is wrong."""

    def __init__(self, time: Callable[[], float], *, began_at: float, wall_skew: float) -> None:
        self._time = time
        self._began_at = began_at
        self._wall_skew = wall_skew

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._time() + self._wall_skew, UTC)

    def monotonic(self) -> float:
        return self._time() - self._began_at

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
