"""The caller's body: streamed on as it comes, and kept for a replay while it fits the limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.types import Receive

from ignition_broker.outbound.errors import BodyBrokeOff
from ignition_broker.proxy.caller_pace import Pace


class RequestBody:
    """Read once from ``receive``; replayable while all of it so far fits ``limit_bytes``.

    ``pace`` is that of whom the call waits for: of the caller's sending, until `answers_at`.
    """

    # On the class, since every call makes such an object.
    _kept_bytes = 0
    _is_read_whole = False
    _has_ended = False
    _end_awaited: asyncio.Future[None] | None = None
    is_caller_gone = False
    is_answered = False
    """Set by whoever sends the answer's last piece: the server then says that there is no more to
    receive, in the same words as for a caller who left."""

    def __init__(self, receive: Receive, limit_bytes: int, declared_bytes: int, pace: Pace) -> None:
        self._receive = receive
        self._coming = self.pace = pace
        self._limit = limit_bytes
        self._kept: list[bytes] = []
        self._is_overlong = declared_bytes > limit_bytes

    @property
    def can_replay(self) -> bool:
        """What has not come yet is no hindrance: a replay goes on to read it."""
        return not self._is_overlong

    def has_none(self) -> None:
        """There is no body to come."""
        self._is_read_whole = True
        self._end()

    async def chunks(self) -> AsyncIterator[bytes]:
        """From the beginning: what is kept first, then what still comes. One at a time."""
        for chunk in list(self._kept):
            yield chunk
        while not self._is_read_whole:
            self._coming.waits()
            message = await self._receive()
            chunk = message.get("body", b"")
            self._coming.moved(len(chunk))
            if message["type"] == "http.disconnect":
                self.is_caller_gone = True
                self._end()
                raise BodyBrokeOff
            self._keep(chunk)
            if not message.get("more_body", False):
                self._is_read_whole = True
                self._end()
            if chunk:
                yield chunk

    def answers_at(self, pace: Pace) -> None:
        """The answer has begun: what counts is how its caller takes it."""
        self.pace = pace

    async def caller_gone(self) -> bool:
        """Returns when the caller goes away, or has its answer: whether it went without. Waits for
        the body's end, lest it take a part of it: until then `chunks` sees a caller that leaves."""
        if not self._has_ended:
            self._end_awaited = asyncio.get_running_loop().create_future()
            await self._end_awaited
        while not self.is_caller_gone:
            is_over = (await self._receive())["type"] == "http.disconnect"
            if is_over and self.is_answered:
                return False
            self.is_caller_gone = is_over
        return True

    def _end(self) -> None:
        self._has_ended = True
        if self._end_awaited is not None and not self._end_awaited.done():
            self._end_awaited.set_result(None)

    def _keep(self, chunk: bytes) -> None:
        if self._is_overlong:
            return
        self._kept_bytes += len(chunk)
        if self._kept_bytes > self._limit:
            self._is_overlong = True
            self._kept.clear()
        elif chunk:
            self._kept.append(chunk)
