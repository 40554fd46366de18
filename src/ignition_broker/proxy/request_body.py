"""The caller's body: streamed on as it comes, and kept for a replay while it fits a limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.types import Receive

from ignition_broker.outbound.errors import BodyBrokeOff
from ignition_broker.proxy.caller_pace import CallerPace


class RequestBody:
    """Read once from ``receive``; it can be replayed while it has at most ``limit_bytes``.

    ``declared_bytes`` is the Content-Length, 0 without one. ``pace`` counts the time for which the
    caller is waited for: while it sends, and from `answers_at` on while it takes the answer.
    """

    # Defaults stand on the class, since every call makes such an object.
    _kept_bytes = 0
    _is_read_whole = False
    _has_ended = False
    _end_awaited: asyncio.Future[None] | None = None
    is_caller_gone = False
    is_answered = False
    """Set by whoever sends the last piece of the answer. From then on the server's receive() says
    ``http.disconnect``, although the caller is still connected."""

    def __init__(
        self, receive: Receive, limit_bytes: int, declared_bytes: int, pace: CallerPace
    ) -> None:
        self._receive = receive
        self._sending_pace = self.pace = pace
        self._limit = limit_bytes
        self._kept: list[bytes] = []
        self._is_overlong = declared_bytes > limit_bytes

    @property
    def can_replay(self) -> bool:
        """Whether all that has been read so far is kept. A replay reads on from there."""
        return not self._is_overlong

    def has_none(self) -> None:
        """The request has no body, so there is nothing to read."""
        self._is_read_whole = True
        self._end()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body from its beginning: what is kept, then what still comes. One iteration at a
        time. Raises `BodyBrokeOff` where the caller disconnects before the end."""
        for chunk in list(self._kept):
            yield chunk
        while not self._is_read_whole:
            self._sending_pace.starts_to_wait()
            message = await self._receive()
            chunk = message.get("body", b"")
            self._sending_pace.moved(len(chunk))
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

    def answers_at(self, pace: CallerPace) -> None:
        """The answer has begun: from now on ``pace`` counts, the caller's pace of taking it."""
        self.pace = pace

    async def caller_gone(self) -> bool:
        """Returns once the caller has disconnected or has its whole answer; True if it disconnected
        without one.

        Waits for the body's end first, so that it takes no part of the body; until then `chunks`
        sees a disconnect.
        """
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
