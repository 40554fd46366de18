"""Ends a call, and its request to the API, when its caller disconnects or is too slow."""

from __future__ import annotations

import asyncio
from types import TracebackType

from ignition_broker.outbound.errors import ExchangeError
from ignition_broker.proxy.caller_pace import LEAST_BYTES_PER_SECOND, CallerTooSlow
from ignition_broker.proxy.request_body import RequestBody

# Most calls are over by then, so that they need neither a task nor a timer of their own.
CHECK_EVERY_SECONDS = 0.1
TOO_SLOW = f"The caller sent or took less than {LEAST_BYTES_PER_SECOND} bytes a second."


class CallerDisconnects:
    """Watches the callers of all running calls by one timer."""

    def __init__(self) -> None:
        self.calls: set[WatchedCall] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, body: RequestBody) -> WatchedCall:
        """A context manager that cancels its block when the caller goes.

        A disconnect ends the block silently; a caller that is too slow raises `CallerTooSlow`.
        """
        if self._timer is None:
            self._check_later()
        return WatchedCall(self.calls, body, self._loop)

    def _check_later(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._timer = loop.call_later(CHECK_EVERY_SECONDS, self._check)

    def _check(self) -> None:
        self._timer = None
        for call in self.calls:
            call.check()
        if self.calls:
            self._check_later()


class WatchedCall:
    """One call's block; made by `CallerDisconnects.watch`."""

    # Defaults stand on the class, since every call makes such an object.
    _was_checked = False
    _is_cut = False
    _task: asyncio.Task[object] | None = None
    _watcher: asyncio.Task[None] | None = None

    def __init__(
        self, calls: set[WatchedCall], body: RequestBody, loop: asyncio.AbstractEventLoop | None
    ) -> None:
        self._calls = calls
        self._body = body
        self._loop = loop

    def __enter__(self) -> WatchedCall:
        # Without the loop it costs a system call in Python 3.11.
        self._task = asyncio.current_task(self._loop)
        self._calls.add(self)
        return self

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
        # The request to the API failed because its body ended early; nobody is left to be told.
        return isinstance(error, ExchangeError)

    def check(self) -> None:
        """Cancels a call whose caller is too slow. The second check of a call begins to watch for
        its caller's disconnect."""
        if self._body.pace.is_too_slow and not self._is_cut and self._task is not None:
            self._is_cut = True
            self._task.cancel()
        if self._was_checked:
            self.watch_at_once()
        self._was_checked = True

    def watch_at_once(self) -> None:
        """Watches for the caller's disconnect without waiting for a check: a call that is sure to
        last need not."""
        if self._watcher is None:
            self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        # Once the answer is whole, the task is left alone: it still has to return its connection.
        if await self._body.caller_gone() and self._task is not None:
            self._task.cancel()
