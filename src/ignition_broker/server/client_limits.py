"""Limits on a connection whose caller is not known yet: the size of a head, and time.

uvicorn has neither: a head may be of any size, and a connection that never sends a whole one may
stay open for ever.
"""

from __future__ import annotations

from asyncio import BaseTransport, TimerHandle

from ignition_broker.problems import HEADERS_TOO_LARGE
from ignition_broker.server.refusals import Refusal
from ignition_broker.server.request_order import OrderedHttpProtocol
from ignition_broker.server.uvicorn_internals import RequestResponseCycle, newest_request

LARGEST_HEAD_BYTES = 64 * 1024
"""The request line and all headers. Reverse proxies send at most half of that by default."""
MOST_HEADERS = 1000
TICK_SECONDS = 10.0
"""A connection is closed if its head is not whole after one to two of these."""
STALLED_TICKS = 6
"""A connection is closed after so many ticks in which its caller neither sent a byte of its body
nor took a byte of its answer, although the server waited for one of them."""

TOO_LARGE = Refusal(
    HEADERS_TOO_LARGE,
    f"At most {LARGEST_HEAD_BYTES} bytes and {MOST_HEADERS} headers are read.",
)


class HeadTooLarge(Exception):
    """Stops the parser."""


class BoundedHttpProtocol(OrderedHttpProtocol):
    """One timer per connection, none per request: each tick looks whether anything has happened.

    A connection without a request is closed at the first tick after its keep-alive time.
    """

    tick_seconds = TICK_SECONDS
    _chunk_bytes = 0
    _head_bytes = 0
    _is_in_head = False
    _is_too_large = False
    _heads = 0
    _received_bytes = 0
    _answered_bytes = 0
    """How many had been received when the last answer was whole."""
    _answered_at = 0.0
    _idle_mark: int | None = None
    _stall_mark: tuple[int, int] | None = None
    _stalled_ticks = 0
    _watch: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self._watch = self.loop.call_later(self.tick_seconds, self._tick)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._chunk_bytes = len(data)
        self._received_bytes += len(data)
        OrderedHttpProtocol.data_received(self, data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > LARGEST_HEAD_BYTES and self._last is None:
                self._refuse(TOO_LARGE)

    def on_message_begin(self) -> None:
        OrderedHttpProtocol.on_message_begin(self)
        self._is_in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._heads += 1
        # The exact size is added up only where it matters: a chunk may hold more than the head.
        if len(self.headers) > MOST_HEADERS or (
            self._head_bytes + self._chunk_bytes > LARGEST_HEAD_BYTES
            and len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            > LARGEST_HEAD_BYTES
        ):
            self._is_too_large = True
            raise HeadTooLarge
        OrderedHttpProtocol.on_headers_complete(self)
        self._is_in_head = False

    def on_response_complete(self) -> None:
        self._answered_bytes = self._received_bytes
        self._answered_at = self.loop.time()
        OrderedHttpProtocol.on_response_complete(self)

    def _could_not_read(self, reason: str) -> None:
        if self._is_too_large:
            self._refuse(TOO_LARGE)
        else:
            super()._could_not_read(reason)

    def _tick(self) -> None:
        newest = newest_request(self)
        is_idle = newest is None or newest.response_complete
        has_head_to_come = newest is None or self._received_bytes != self._answered_bytes
        mark = self._heads if is_idle and has_head_to_come else None
        is_kept_too_long = (
            is_idle
            and not has_head_to_come
            and self.loop.time() - self._answered_at >= self.timeout_keep_alive
        )
        if is_kept_too_long or (mark is not None and mark == self._idle_mark):
            self.transport.close()
            return
        self._idle_mark = mark
        self._count_stall(None if is_idle else newest)
        if self._stalled_ticks >= STALLED_TICKS:
            self.transport.abort()
            return
        self._watch = self.loop.call_later(self.tick_seconds, self._tick)

    def _count_stall(self, answering: RequestResponseCycle | None) -> None:
        """Counts the ticks in which nothing came from a caller for whom the server waits. A pause
        of the API's does not count."""
        waits_for_body = (
            answering is not None
            and answering.more_body
            and not answering.response_started
            and not self.flow.read_paused
        )
        waits_for_reader = answering is not None and self.flow.write_paused
        mark = (self._received_bytes, self.transport.get_write_buffer_size())
        is_stalled = (waits_for_body or waits_for_reader) and mark == self._stall_mark
        self._stalled_ticks = self._stalled_ticks + 1 if is_stalled else 0
        self._stall_mark = mark
