"""What a caller's connection does while the server stops."""

from __future__ import annotations

import select
from asyncio import BaseTransport, TimerHandle
from typing import Any

from ignition_broker.server.client_limits import BoundedHttpProtocol
from ignition_broker.server.uvicorn_internals import newest_request

FIRST_REQUEST_SECONDS = 5.0
"""How long a connection that was accepted before the listener closed may take for its first
request."""


class DrainingHttpProtocol(BoundedHttpProtocol):
    """From `drain` on, every answer says ``Connection: close`` and ends its connection (RFC 9112
    section 9.6), so that the caller opens its next one at another process."""

    _is_draining = False
    _last_timer: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        # The tests also run this protocol on uvicorn's own server, which has neither.
        state: Any = self.server_state
        self._is_draining = getattr(state, "is_draining", False)
        if hasattr(state, "connection_was_made"):
            state.connection_was_made()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._last_timer is not None:
            self._last_timer.cancel()
        super().connection_lost(exc)

    def drain(self) -> None:
        """The answer that comes next ends the connection."""
        self._is_draining = True
        newest = newest_request(self)
        if newest is not None and not newest.response_started:
            newest.keep_alive = False

    def end(self, *, closes_idle: bool) -> None:
        """Ends the connection after the listener has closed.

        It ends with its present answer, or with the next one if a request may be on its way. An
        idle connection is closed after its keep-alive time; with ``closes_idle``, at once unless a
        request lies unread in its socket.
        """
        self.drain()
        newest = newest_request(self)
        if newest is None:
            self._last_timer = self.loop.call_later(FIRST_REQUEST_SECONDS, self._close_if_idle)
        elif not newest.response_complete:
            newest.keep_alive = newest.keep_alive and not closes_idle
        elif closes_idle and not self._is_readable():
            self.transport.close()
        else:
            idle_seconds = self.loop.time() - self._answered_at
            self._last_timer = self.loop.call_later(
                self.timeout_keep_alive - idle_seconds, self._close_if_idle
            )

    @property
    def is_answering(self) -> bool:
        """Whether `cut` would cost a caller its answer."""
        newest = newest_request(self)
        return newest is not None and (
            not newest.response_complete or self.transport.get_write_buffer_size() > 0
        )

    def cut(self) -> None:
        """Closes the connection at once."""
        self.transport.abort()

    def _close_if_idle(self) -> None:
        newest = newest_request(self)
        if newest is None or newest.response_complete:
            self.transport.close()

    def _is_readable(self) -> bool:
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))
