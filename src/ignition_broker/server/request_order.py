"""Requests of one connection, read and answered in order.

What uvicorn's protocol does wrong, and this one does right:

- It reads a request that offers another protocol (RFC 9110 section 7.8) without its body, and then
  the body as the next request. Here the offer is ignored.
- It answers a request that can't be read at once, ahead of the requests before it.
- When the connection is lost, it tells only the newest of several pipelined requests.
- It sends chunks to a caller that speaks HTTP/1.0.
"""

from __future__ import annotations

import socket
import struct
from asyncio import BaseTransport
from collections.abc import Iterator
from typing import Any

import httptools
import structlog

from ignition_broker.server.joined_writes import JoinedWrites
from ignition_broker.server.refusals import NOT_READABLE, TUNNEL, Refusal
from ignition_broker.server.uvicorn_internals import (
    HttpToolsProtocol,
    RequestResponseCycle,
    answer_without_chunks,
    newest_request,
    tell_that_caller_is_gone,
)

log = structlog.get_logger(__name__)

OFFERED_PROTOCOLS = "offered_protocols"
"""The key in the scope's state for what the request's Upgrade header names, in lower case."""
CUT_AT_ONCE = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing resets the connection."""


class OrderedHttpProtocol(HttpToolsProtocol):
    _running: RequestResponseCycle | None = None
    """The request that is being answered, or was answered last; later ones are in `pipeline`."""
    _last: Refusal | None = None
    """The answer after all others; once it is set, nothing more is read."""

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn narrows it
        self.transport = JoinedWrites(self.transport, self.loop)  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        for cycle in self._unanswered():
            tell_that_caller_is_gone(cycle)
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._last is not None:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._read_without_offer(memoryview(data), offer)
        except httptools.HttpParserError as error:
            self._could_not_read(str(error))

    def _should_upgrade(self) -> bool:
        # uvicorn asks this where the parser has stopped at an offer. True makes it leave the
        # request to `_read_without_offer`, which parses it a second time.
        return True

    def _read_without_offer(self, data: memoryview, offer: httptools.HttpParserUpgrade) -> None:
        """Reads ``data``, at which the parser stopped: the request with the offer, and what
        follows."""
        while True:
            if self.scope["method"] == "CONNECT":
                self._refuse(TUNNEL)
                return
            try:
                self._read_head_without_offer()
                # A memoryview copies nothing: one piece may hold thousands of such requests.
                data = data[offer.args[0] :]
                if data:
                    self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as next_offer:
                offer = next_offer
            except httptools.HttpParserError as error:
                self._could_not_read(str(error))
                return
            else:
                return

    def _read_head_without_offer(self) -> None:
        """Parses the head anew without its Upgrade header, after which the parser takes a body."""
        version = self.parser.get_http_version().encode("ascii")
        headers = self.headers
        protocols = b",".join(value.lower() for name, value in headers if name == b"upgrade")
        line = b"%b %b HTTP/%b" % (self.scope["method"].encode("ascii"), self.url, version)
        fields = (b"%b: %b" % pair for pair in headers if pair[0] != b"upgrade")
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(b"\r\n".join([line, *fields, b"", b""]))
        # The application sees what was sent.
        self.cycle.scope["headers"] = headers
        self.cycle.scope["state"][OFFERED_PROTOCOLS] = protocols

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        if cycle.scope["http_version"] != "1.1":
            answer_without_chunks(cycle)
        HttpToolsProtocol._start_asgi_task(self, cycle, app)

    def on_response_complete(self) -> None:
        # As uvicorn's, without its timer per answer: `server.client_limits` closes idle
        # connections.
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def _could_not_read(self, reason: str) -> None:
        log.warning("request_not_readable", reason=reason)
        self._refuse(NOT_READABLE)

    def _refuse(self, refusal: Refusal) -> None:
        """Reads no more, and sends the refusal once the requests before it are answered."""
        self._last = refusal
        # Set here and not for every request, since the call would cost every request.
        for cycle in self._unanswered():
            cycle.on_response = self._end_behind_answers
        newest = newest_request(self)
        if newest is not None and newest.more_body and newest.scope is self.scope:
            # No other request has begun, so it is the body of this one that can't be read.
            self._give_up(newest)
        elif newest is None or newest.response_complete:
            self._end_with(refusal)

    def _end_behind_answers(self) -> None:
        self.on_response_complete()
        if self._last is not None and self.cycle.response_complete:
            self._end_with(self._last)

    def _give_up(self, newest: RequestResponseCycle) -> None:
        running = self._running
        assert running is not None  # noqa: S101  # the first request is started at once
        if newest is not running:
            self.pipeline.popleft()
            self.cycle = self.pipeline[0][0] if self.pipeline else running
            if not self.cycle.response_complete:
                return
        elif newest.response_started:
            # Answered, or half answered: another answer would be taken for the next request's.
            tell_that_caller_is_gone(newest)
            self.transport.close()
            return
        else:
            tell_that_caller_is_gone(newest)
        assert self._last is not None  # noqa: S101  # set by the only caller
        self._end_with(self._last)

    def _end_with(self, refusal: Refusal) -> None:
        if not self.transport.is_closing():
            self.transport.write(refusal.answer())
            self.transport.close()

    def _break_off(self) -> None:
        """Breaks off the answer that is being sent, without the traceback that uvicorn would
        log."""
        running = self._running
        assert running is not None  # noqa: S101  # it is the one that asks
        running.disconnected = True
        if running.scope["http_version"] != "1.1":
            # In HTTP/1.0 a close may be an answer's proper end, so only a reset says that it is
            # not.
            line = self.transport.get_extra_info("socket")
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CUT_AT_ONCE)
        self.transport.close()

    def _unanswered(self) -> Iterator[RequestResponseCycle]:
        if self._running is not None and not self._running.response_complete:
            yield self._running
        for cycle, _app in self.pipeline:
            yield cycle
