"""uvicorn's reading of HTTP/1.1, made fit for a proxy."""

from __future__ import annotations

import asyncio
from typing import Any

from ignition_broker.proxy.client_limits import BoundedHttpProtocol

PREFIX = b"/proxy/"
# In the scope's state:
HAS_EMPTY_QUERY = "has_empty_query"
BREAK_OFF = "break_off"
# Beyond it, joining costs more than a system call.
LARGEST_JOINED_BYTES = 1 << 15


class Nowhere(list[tuple[bytes, bytes]]):
    """Where trailers go: there may be any number of them, and nobody reads them."""

    def append(self, _header: tuple[bytes, bytes]) -> None:
        pass


NOWHERE = Nowhere()


class ProxyHttpProtocol(BoundedHttpProtocol):
    """uvicorn adds trailers to the headers (RFC 9110 section 6.5.1 forbids it) and a Date of its
    own to the API's, drops a '?' with nothing behind it, and writes a head and its body apart."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._joined = JoinedWrites(self.transport, self.loop)

    def on_headers_complete(self) -> None:
        BoundedHttpProtocol.on_headers_complete(self)
        if self.parser.should_upgrade() and self._should_upgrade():
            return  # A WebSocket's handshake, whose headers are still to be read.
        # The scope keeps the list it has.
        self.headers = NOWHERE
        self.cycle.transport = self._joined  # type: ignore[assignment]
        self.scope["state"][BREAK_OFF] = self._break_off
        if self.scope["raw_path"].startswith(PREFIX):
            self.cycle.default_headers = []
            if self.url.endswith(b"?") and not self.scope["query_string"]:
                self.scope["state"][HAS_EMPTY_QUERY] = True

    def _break_off(self) -> None:
        # uvicorn would do so too, with a traceback in the log.
        self.cycle.disconnected = True
        self._joined.close()


class JoinedWrites:
    """What is written within one turn of the event loop leaves in one system call, which costs more
    than all of the rest of a short answer."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> None:
        if len(piece) > LARGEST_JOINED_BYTES:
            self._flush()
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
            self._transport.write(b"".join(self._pieces))
            self._pieces.clear()
