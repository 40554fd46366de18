"""Callers who leave ahead of their answer or are too slow, and what is broken off then."""

from __future__ import annotations

import asyncio
from types import TracebackType

from ignition_broker.outbound.errors import ExchangeError
from ignition_broker.proxy.caller_pace import LEAST_BYTES_PER_SECOND, CallerTooSlow
from ignition_broker.proxy.request_body import RequestBody

# Most calls are over by then, and cost neither a task nor a timer.
LOOKED_AT_EVERY_SECONDS = 0.1
TOO_SLOW = f"The caller sent or took less than {LEAST_BYTES_PER_SECOND} bytes a second."


class Departures:
    """Watches the callers of all calls that last."""

    def __init__(self) -> None:
        self.calls: set[Departure] = set()
        self._timer: asyncio.TimerHandle | None = None

    def break_off(self, body: RequestBody) -> Departure:
        """A block that is broken off, and with it the upstream request, when the caller leaves."""
        if self._timer is None:
            self._look_later()
        return Departure(self.calls, body)

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(LOOKED_AT_EVERY_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        for call in self.calls:
            call.watch_if_it_lasts()
        if self.calls:
            self._look_later()


class Departure:
    # On the class, since every call makes such an object.
    _is_seen = False
    _is_cut = False
    _task: asyncio.Task[object] | None = None
    _watcher: asyncio.Task[None] | None = None

    def __init__(self, calls: set[Departure], body: RequestBody) -> None:
        self._calls = calls
        self._body = body

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._calls.add(self)

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> bool:
        self._calls.discard(self)
        if self._watcher is not None:
            self._watcher.cancel()
        if error is None:
            return False
        if self._is_cut and isinstance(error, asyncio.CancelledError):
            assert self._task is not None  # noqa: S101  # a coroutine runs in a task
            self._task.uncancel()
            raise CallerTooSlow(TOO_SLOW) from None
        if not self._body.is_caller_gone:
            return False
        if isinstance(error, asyncio.CancelledError):
            assert self._task is not None  # noqa: S101  # a coroutine runs in a task
            self._task.uncancel()
            return True
        # The API's client saw the body end early, and nobody is left to be told.
        return isinstance(error, ExchangeError)

    def watch_if_it_lasts(self) -> None:
        if self._body.pace.is_too_slow and not self._is_cut and self._task is not None:
            self._is_cut = True
            self._task.cancel()
        if self._watcher is None and self._is_seen:
            self._watcher = asyncio.get_running_loop().create_task(self._watch())
        self._is_seen = True

    async def _watch(self) -> None:
        # Not once the answer is whole: what is left then is to give its connection back.
        if await self._body.caller_gone() and self._task is not None:
            self._task.cancel()
