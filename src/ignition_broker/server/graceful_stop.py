"""How `serve` stops, in three phases. A further signal ends the present one.

1. Drain: from the first SIGTERM or SIGINT on, `/readyz` says 503 and answers say `Connection:
   close`, while new connections are still served, so that load balancers can take the process out.
2. The listener closes. Callers that have a connection by then are answered.
3. Grace: running calls may end. Those that have not ended by then are cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any

import structlog
import uvicorn

from ignition_broker.clock import SystemClock
from ignition_broker.server.accepting import Acceptor
from ignition_broker.server.stop_state import STATE_KEY
from ignition_broker.server.uvicorn_internals import ServerState, make_protocol

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.05
# Handshakes that had begun when new ones were refused can end within this time.
SETTLE_SECONDS = 0.1
# Calls that were cut off get so long to notice it.
NOTICE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class StopTimes:
    """Both count from the first signal. The grace never ends before the drain does."""

    drain_seconds: float
    grace_seconds: float


class _State(ServerState):
    """What uvicorn's server shares with its connections, and two things more."""

    def __init__(self, acceptor: Acceptor) -> None:
        super().__init__()
        self.is_draining = False
        self._acceptor = acceptor

    def connection_was_made(self) -> None:
        self._acceptor.accept_more(len(self.connections))


class StoppingServer(uvicorn.Server):
    """A server whose connections are `DrainingHttpProtocol`.

    ``owns_listeners``: no other process accepts on its sockets, or all of them stop together.
    """

    owns_listeners = True

    def __init__(self, config: uvicorn.Config, times: StopTimes) -> None:
        super().__init__(config)
        self._acceptor = Acceptor(partial(make_protocol, self))
        self.server_state = self._state = _State(self._acceptor)
        self._times = times
        self._clock = SystemClock()
        self._is_hurried = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Unlike uvicorn, does not raise the signal again at the end: a stop ends with exit code
        0."""
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._is_hurried = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._acceptor.listen(self.servers)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        began = self._clock.monotonic()
        await self._drain(began + self._times.drain_seconds)
        await self._stop_listening(sockets or [])
        for connection in list(self._connections):
            connection.end(closes_idle=self._times.drain_seconds == 0)
        await self._finish(began + self._times.grace_seconds)
        await self.lifespan.shutdown()

    @property
    def _connections(self) -> set[Any]:
        return self.server_state.connections

    async def _drain(self, until: float) -> None:
        stopping = self.lifespan.state.get(STATE_KEY)
        if stopping is not None:
            stopping.begin()
        self._state.is_draining = True
        for connection in list(self._connections):
            connection.drain()
        log.info("drain_began", seconds=self._times.drain_seconds)
        await self._wait(until)

    async def _wait(self, until: float, *, for_calls: bool = False) -> None:
        looks = 0
        while (seconds := until - self._clock.monotonic()) > 0 and not self._is_hurried:
            if for_calls and not self._connections and not self.server_state.tasks:
                break
            await self._clock.sleep(min(LOOK_SECONDS, seconds))
            looks += 1
            # Keeps the Date header current.
            await self.on_tick(looks)
        self._is_hurried = False

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        if self.owns_listeners:
            self._acceptor.refuse_new()
            await self._clock.sleep(SETTLE_SECONDS)
        for server in self.servers:
            server.close()
        for each in sockets:
            each.close()
        await self._acceptor.close()

    async def _finish(self, until: float) -> None:
        await self._wait(until, for_calls=True)
        if not self._connections and not self.server_state.tasks:
            return
        count = sum(connection.is_answering for connection in self._connections)
        if count:
            log.warning("calls_cut_off", count=count, grace_seconds=self._times.grace_seconds)
        for connection in list(self._connections):
            connection.cut()
        tasks = set(self.server_state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=NOTICE_SECONDS)
        # uvicorn logs a traceback for each task that is cancelled.
        logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)
        for task in self.server_state.tasks:
            task.cancel()
        await asyncio.gather(*self.server_state.tasks, return_exceptions=True)


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, asyncio.CancelledError)
