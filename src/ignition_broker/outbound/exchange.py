"""One request and its answer on a connection, as the side that asks sees it."""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

from ignition_broker.outbound.errors import ExchangeError, Unreachable

Headers = list[tuple[bytes, bytes]]
"""In order; of an answer, with names in lower case."""
NEVER = math.inf
# What may lie here unread before the server is made to wait.
READ_AHEAD_BYTES = 1 << 17


class Line(Protocol):
    """What an exchange needs of its connection."""

    def hold(self) -> None:
        """Reads no more from the server for now."""
        ...

    def resume(self) -> None: ...

    def abort(self) -> None:
        """Cuts the connection; the exchange on it is over."""
        ...


class Exchange:
    """Filled by the connection, emptied by `read`.

    ``deadline`` is when the present wait has lasted too long, on the event loop's clock; who
    watches it calls `fail`.
    """

    __slots__ = (
        "_failure",
        "_held",
        "_line",
        "_loop",
        "_pieces",
        "_pieces_bytes",
        "_waiter",
        "deadline",
        "has_answered",
        "headers",
        "idle_timeout_seconds",
        "is_bodiless",
        "is_whole",
        "status",
        "tells_limit",
    )

    def __init__(
        self,
        line: Line,
        loop: asyncio.AbstractEventLoop,
        *,
        is_bodiless: bool,
        idle_timeout_seconds: float,
    ) -> None:
        self.status = 0
        self.headers: Headers = []
        self.tells_limit = False
        self.has_answered = False
        self.is_whole = False
        self.is_bodiless = is_bodiless
        self.deadline = NEVER
        self.idle_timeout_seconds = idle_timeout_seconds
        self._line: Line | None = line
        self._loop = loop
        self._pieces: list[bytes] = []
        self._pieces_bytes = 0
        self._held = False
        self._waiter: asyncio.Future[None] | None = None
        self._failure: ExchangeError | None = None

    @property
    def is_over(self) -> bool:
        """Nothing more will come, for good or ill."""
        return self.is_whole or self._failure is not None

    async def answered(self) -> None:
        """Until status and headers have come. Raises what `fail` was called with."""
        if not self.has_answered and self._failure is None:
            await self._wait()
        if self._failure is not None and not self.has_answered:
            raise self._failure
        self.deadline = NEVER

    async def read(self) -> bytes:
        while not self._pieces:
            if self.is_whole:
                return b""
            if self._failure is not None:
                raise self._failure
            self.deadline = self._loop.time() + self.idle_timeout_seconds
            await self._wait()
            self.deadline = NEVER
        piece = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._pieces_bytes = 0
        if self._held:
            self._held = False
            if self._line is not None:
                self._line.resume()
        return piece

    async def aclose(self) -> None:
        if self._line is not None:
            self.close()

    def close(self) -> None:
        """Gives up what has not been read."""
        if not self.is_over and self._line is not None:
            self.fail(Unreachable("The answer was given up."))

    def begin_answer(self, status: int, headers: Headers, *, tells_limit: bool = False) -> None:
        """``tells_limit``: whether a header is one of `LIMIT_HEADERS`."""
        self.status = status
        self.headers = headers
        self.tells_limit = tells_limit
        self.has_answered = True
        self._wake()

    def take(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._pieces_bytes += len(piece)
        if self._pieces_bytes > READ_AHEAD_BYTES and not self._held and self._line is not None:
            self._held = True
            self._line.hold()
        self._wake()

    def complete(self) -> None:
        """All has come; the connection is no longer this exchange's."""
        self.is_whole = True
        if self._held and self._line is not None:
            self._line.resume()
        self._line = None
        self._wake()

    def fail(self, error: ExchangeError) -> None:
        """Over before its end: what has come can still be read, then ``error`` is raised."""
        if self.is_over:
            return
        self._failure = error
        line, self._line = self._line, None
        self._wake()
        if line is not None:
            line.abort()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
