"""Joins small writes to a caller's connection."""

from __future__ import annotations

import asyncio
from typing import Any

# Joining larger pieces costs more than a system call.
LARGEST_JOINED_BYTES = 1 << 15


class JoinedWrites:
    """A transport that sends all that is written within one turn of the event loop by one system
    call, since that call costs more than the rest of a short answer.

    Closing it first sends what it still holds. What is written to a connection that has been lost
    is dropped, since nobody can take it.
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
