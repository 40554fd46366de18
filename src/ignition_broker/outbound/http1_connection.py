"""One connection to a server, HTTP/1.1 (RFC 9112): a request at a time, written as it is given and
read by llhttp, the parser that uvicorn reads its own callers with.

Over 250 lines: asyncio and llhttp call methods of one object, and these share its state.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import cast

import httptools

from ignition_broker.outbound.connection_reuse import (
    BODILESS_STATUSES,
    asks_to_close,
    may_keep_after_head,
    may_keep_after_request,
)
from ignition_broker.outbound.errors import BodyBrokeOff, Unreachable
from ignition_broker.outbound.exchange import NEVER, Exchange, Headers
from ignition_broker.rate_limits import LIMIT_HEADERS

# What nginx takes by default is far less.
HEAD_BYTES = 1 << 16
MOST_HEADERS = 1000
SWITCHING_PROTOCOLS = 101
# One look-up a header, as every answer pays for it.
_NOTED = LIMIT_HEADERS | {b"content-length", b"transfer-encoding"}
RESET_AT_ONCE = struct.pack("ii", 1, 0)  # For SO_LINGER.


class Connection(asyncio.Protocol):
    """``on_free`` is called when the connection can take another request of the same ``tenant``,
    ``on_lost`` when it is gone. Between the two it belongs to one `Exchange`. ``server``: its name
    in errors."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_free: Callable[[Connection], None],
        on_lost: Callable[[Connection], None],
        server: str,
    ) -> None:
        self._server = server
        self._loop = loop
        self._on_free = on_free
        self._on_lost = on_lost
        self._parser = httptools.HttpResponseParser(self)
        self.exchange: Exchange | None = None
        self.tenant: str | None = None
        self._has_body = False
        self._is_reusable = False
        self._writer: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._is_write_held = False
        self._headers: Headers = []
        self._head_bytes = 0
        self._is_head_whole = False
        self._ends_with_connection = False
        self.was_made = False
        self.is_open = False
        self.free_since = 0.0
        self.requests = 0

    def request(
        self,
        tenant: str | None,
        method: str,
        head: bytes,
        body: AsyncIterator[bytes] | None,
        *,
        is_chunked: bool,
        timeout_seconds: float,
        idle_timeout_seconds: float,
    ) -> Exchange:
        """Writes ``head``, and ``body`` beside the reading of the answer. ``tenant`` None: the
        connection is closed after the answer."""
        exchange = Exchange(
            self,
            self._loop,
            is_bodiless=method == "HEAD",
            idle_timeout_seconds=idle_timeout_seconds,
        )
        self.exchange = exchange
        self.tenant = tenant
        self._has_body = body is not None
        self._is_reusable = tenant is not None and may_keep_after_request(
            method, has_body=self._has_body
        )
        self._head_bytes = 0
        self.requests += 1
        self._transport.write(head)
        if body is None:
            exchange.deadline = self._loop.time() + timeout_seconds
        else:
            self._writer = self._loop.create_task(
                self._write(exchange, body, timeout_seconds, is_chunked=is_chunked)
            )
        return exchange

    def is_fit(self) -> bool:
        """Whether an idle connection can take a request. What has come on it that the event loop
        has not seen yet is its end, or what nobody asked for."""
        return self.is_open and not self._poll.poll(0)

    def hold(self) -> None:
        if self.is_open:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self.is_open and not self._transport.is_closing():
            self._transport.resume_reading()

    def discard(self) -> None:
        """Closes a connection on which no answer is awaited, by a reset: a local port that was
        closed in the usual way is taken for another minute, and there are only some 28,000."""
        if self.is_open:
            line = self._transport.get_extra_info("socket")
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_ONCE)
        self.abort()

    def abort(self) -> None:
        self.is_open = False
        self.exchange = None
        self._stop_writing()
        self._transport.abort()

    async def _write(
        self,
        exchange: Exchange,
        body: AsyncIterator[bytes],
        timeout_seconds: float,
        *,
        is_chunked: bool,
    ) -> None:
        """The time for the answer counts anew from each piece that the API takes, and not while
        the caller is slow."""
        try:
            async for piece in body:
                if is_chunked:
                    self._transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))
                else:
                    self._transport.write(piece)
                if self._is_write_held:
                    if not exchange.has_answered:
                        exchange.deadline = self._loop.time() + timeout_seconds
                    self._room = self._loop.create_future()
                    await self._room
                    if not exchange.has_answered:
                        exchange.deadline = NEVER
            if is_chunked:
                self._transport.write(b"0\r\n\r\n")
        except BodyBrokeOff:
            exchange.fail(Unreachable("The request's body broke off."))
            return
        if not exchange.has_answered:
            exchange.deadline = self._loop.time() + timeout_seconds
        self._writer = None

    # asyncio calls the next six.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self.was_made = True
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._break_off("closed the connection" if exc is None else type(exc).__name__)
        self._stop_writing()
        self._on_lost(self)
        # It holds methods of this object: a cycle that only the garbage collector would free.
        del self._parser

    def eof_received(self) -> None:
        exchange = self.exchange
        if exchange is not None and exchange.has_answered and self._ends_with_connection:
            self.exchange = None
            exchange.complete()

    def pause_writing(self) -> None:
        self._is_write_held = True

    def resume_writing(self) -> None:
        self._is_write_held = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self.exchange is None:
            # Nothing was asked: whatever it is, it must not become the next caller's answer.
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserUpgrade, httptools.HttpParserError) as error:
            self._break_off(f"sent no proper HTTP ({error.__context__ or error})")
            self.abort()
        else:
            if not self._is_head_whole:
                self._head_bytes += len(data)
                if self._head_bytes > HEAD_BYTES:
                    self._break_off("sent too large a head")

    # llhttp calls the next five.

    def on_message_begin(self) -> None:
        if self.exchange is None:
            raise _Refused("more than one answer")
        self._headers = []
        self._is_head_whole = False
        self._ends_with_connection = True
        self._tells_limit = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_head_whole:
            return  # A trailer, dropped (RFC 9110 section 6.5.1).
        name = name.lower()
        if name in _NOTED:
            if name in LIMIT_HEADERS:
                self._tells_limit = True
            elif name == b"content-length" or value.lower().rstrip().endswith(b"chunked"):
                self._ends_with_connection = False
        self._headers.append((name, value))
        if len(self._headers) > MOST_HEADERS:
            raise _Refused(f"more than {MOST_HEADERS} headers")

    def on_headers_complete(self) -> None:
        exchange = self.exchange
        if exchange is None:
            raise _Refused("more than one answer")
        status = self._parser.get_status_code()
        if status == SWITCHING_PROTOCOLS:
            raise _Refused("another protocol, unasked")
        # A request without a body and an answer that has one: nothing to judge, and most are so.
        if self._is_reusable and (self._has_body or status < 200 or status in BODILESS_STATUSES):
            is_whole = not self._has_body or self._is_request_out()
            self._is_reusable = may_keep_after_head(
                status, self._headers, is_request_whole=is_whole
            )
        if 100 <= status < 200:
            return  # An interim answer (RFC 9110 section 15.2): the one that counts is to come.
        self._is_head_whole = True
        if status in BODILESS_STATUSES:
            exchange.is_bodiless = True
        exchange.begin_answer(status, self._headers, tells_limit=self._tells_limit)
        if exchange.is_bodiless:
            # llhttp does not know of the method, and may wait for what a length announces.
            is_kept = self._parser.get_http_version() == "1.1" and not asks_to_close(self._headers)
            self._parser = httptools.HttpResponseParser(self)
            self._finish(is_kept=is_kept)

    def on_body(self, body: bytes) -> None:
        if self.exchange is None:
            raise _Refused("a body where none may be")
        self.exchange.take(body)

    def on_message_complete(self) -> None:
        if self._is_head_whole and self.exchange is not None:
            self._finish(is_kept=self._parser.should_keep_alive())

    def _is_request_out(self) -> bool:
        return self._writer is None and not self._transport.get_write_buffer_size()

    def _finish(self, *, is_kept: bool) -> None:
        exchange, self.exchange = self.exchange, None
        assert exchange is not None  # noqa: S101  # both callers have looked
        exchange.complete()
        if not (is_kept and self.is_open):
            self.abort()
        elif self._is_reusable and self._writer is None:
            self.free_since = self._loop.time()
            self._on_free(self)
        else:
            self.discard()

    def _break_off(self, reason: str) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return
        what = "answer broke off" if exchange.has_answered else "connection brought no answer"
        exchange.fail(
            Unreachable(
                f"{self._server}'s {what}: it {reason}.",
                may_be_stale=self.requests > 1 and not exchange.has_answered,
            )
        )

    def _stop_writing(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.cancel()


class _Refused(Exception):
    """What llhttp lets through, and no answer may hold."""
