"""The writing side of a caller's connection."""

from __future__ import annotations

import asyncio
from typing import Any

# Beyond it, joining costs more than a system call.
LARGEST_JOINED_BYTES = 1 << 15


class JoinedWrites:
    """What is written within one turn of the event loop leaves in one system call, which costs more
    than all of the rest of a short answer.

    Stands in for the transport, so that whoever closes it sends what is still held. The connection
    may be lost before the turn is over, or while an answer is still being made: what is written
    then is dropped, since nobody is there to take it.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []
        # Asked for at every write.
        self.is_closing = transport.is_closing

    def write(self, piece: bytes) -> None:
        if len(piece) > LARGEST_JOINED_BYTES:
            self._flush()
            if not self.is_closing():
                self._transport.write(piece)
            return
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(piece)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        if self._pieces:
            # uvloop raises at a write to a connection that is gone.
            if not self.is_closing():
                self._transport.write(b"".join(self._pieces))
            self._pieces.clear()
