"""The caller's body: streamed on as it comes, and kept for a replay while it fits the limit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.types import Receive

from ignition_broker.proxy.errors import ProxyError


class CallerGone(Exception):
    """The caller went away before its body was whole."""


class RequestBody:
    """Read once from ``receive``; replayable while all of it so far fits ``limit_bytes``."""

    def __init__(self, receive: Receive, limit_bytes: int, declared_bytes: int = 0) -> None:
        self._receive = receive
        self._limit = limit_bytes
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._is_overlong = declared_bytes > limit_bytes
        self._is_read_whole = False
        self._has_ended = asyncio.Event()
        self.is_caller_gone = False

    @property
    def can_replay(self) -> bool:
        """What has not come yet is no hindrance: a replay goes on to read it."""
        return not self._is_overlong

    def has_none(self) -> None:
        """There is no body to come."""
        self._is_read_whole = True
        self._has_ended.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        """From the beginning: what is kept first, then what still comes. One at a time."""
        for chunk in list(self._kept):
            yield chunk
        while not self._is_read_whole:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.is_caller_gone = True
                self._has_ended.set()
                raise CallerGone
            chunk = message.get("body", b"")
            self._keep(chunk)
            if not message.get("more_body", False):
                self._is_read_whole = True
                self._has_ended.set()
            if chunk:
                yield chunk

    async def caller_gone(self) -> None:
        """Returns when the caller goes away. Waits for the body's end, lest it take a part of it:
        until then `chunks` sees a caller that leaves."""
        await self._has_ended.wait()
        while not self.is_caller_gone:
            self.is_caller_gone = (await self._receive())["type"] == "http.disconnect"

    def _keep(self, chunk: bytes) -> None:
        if self._is_overlong:
            return
        self._kept_bytes += len(chunk)
        if self._kept_bytes > self._limit:
            self._is_overlong = True
            self._kept.clear()
        elif chunk:
            self._kept.append(chunk)


@contextlib.asynccontextmanager
async def abandoned_with_caller(body: RequestBody) -> AsyncIterator[None]:
    """Breaks the block off, and with it the upstream request, when the caller goes away."""
    current = asyncio.current_task()
    assert current is not None  # noqa: S101  # a coroutine runs in a task

    async def watch() -> None:
        await body.caller_gone()
        current.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not body.is_caller_gone:
            raise
        current.uncancel()
    except ProxyError:
        # The API's client saw the body end early, and nobody is left to be told.
        if not body.is_caller_gone:
            raise
    finally:
        watcher.cancel()
