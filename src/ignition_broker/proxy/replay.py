"""The caller's body: streamed on as it comes, and kept for a replay while it fits the limit."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.types import Receive


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
        self.is_read_whole = False

    @property
    def can_replay(self) -> bool:
        return not self._is_overlong

    async def chunks(self) -> AsyncIterator[bytes]:
        """From the beginning: what is kept first, then what still comes."""
        for chunk in list(self._kept):
            yield chunk
        while not self.is_read_whole:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise CallerGone
            chunk = message.get("body", b"")
            self.is_read_whole = not message.get("more_body", False)
            self._keep(chunk)
            if chunk:
                yield chunk

    async def caller_gone(self) -> None:
        """Returns when the caller goes away; to be awaited only when the body was read whole."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _keep(self, chunk: bytes) -> None:
        if self._is_overlong:
            return
        self._kept_bytes += len(chunk)
        if self._kept_bytes > self._limit:
            self._is_overlong = True
            self._kept.clear()
        elif chunk:
            self._kept.append(chunk)
