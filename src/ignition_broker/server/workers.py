"""`serve --workers N`: processes that share the listening sockets. One that dies is replaced.

The parent passes the first SIGTERM or SIGINT on as `STOP` and a further one as `HURRY`. A terminal
and some supervisors signal all processes at once: a worker that took the parent's signal, on top of
its own, for a second one would skip the drain.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from types import FrameType

import structlog
import uvicorn

from ignition_broker.server.graceful_stop import StoppingServer, StopTimes
from ignition_broker.server.uvicorn_internals import STARTUP_FAILURE

log = structlog.get_logger(__name__)

PR_SET_PDEATHSIG = 1
TOLD_BY = (signal.SIGTERM, signal.SIGINT)
STOP = signal.SIGUSR1
HURRY = signal.SIGUSR2
_spawn = multiprocessing.get_context("spawn")
multiprocessing.allow_connection_pickling()  # Of the sockets.


class Workers:
    def __init__(
        self, config: uvicorn.Config, times: StopTimes, sockets: list[socket.socket]
    ) -> None:
        self._config = config
        self._times = times
        self._sockets = sockets
        self._running: list[SpawnProcess] = []
        self._is_stopping = False

    def run(self) -> bool:
        """Runs the workers until all have ended. Returns False where one could not start."""
        for number in TOLD_BY:
            signal.signal(number, self._on_signal)
        could_start = True
        for _ in range(self._config.workers):
            self._start()
        while self._running:
            for worker in self._ended():
                self._running.remove(worker)
                worker.join()
                if self._is_stopping:
                    continue
                if worker.exitcode == STARTUP_FAILURE:
                    # A replacement would fail in the same way.
                    could_start = False
                    self._stop()
                    continue
                log.error("worker_ended", pid=worker.pid, exit_code=worker.exitcode)
                self._start()
        return could_start

    def _start(self) -> None:
        worker = _spawn.Process(target=work, args=(self._config, self._times, self._sockets))
        # The worker inherits the mask, so that no signal ends it before it handles signals.
        signal.pthread_sigmask(signal.SIG_BLOCK, TOLD_BY)
        worker.start()
        self._running.append(worker)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, TOLD_BY)

    def _ended(self) -> list[SpawnProcess]:
        ended = connection.wait([worker.sentinel for worker in self._running])
        return [worker for worker in self._running if worker.sentinel in ended]

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_stopping:
            self._send(HURRY)
        else:
            self._stop()

    def _stop(self) -> None:
        self._is_stopping = True
        self._send(STOP)
        # While the parent holds a socket open, connections are queued that nobody will accept.
        for each in self._sockets:
            each.close()

    def _send(self, number: int) -> None:
        for worker in self._running:
            with contextlib.suppress(ProcessLookupError):
                if worker.pid is not None:
                    os.kill(worker.pid, number)


def work(config: uvicorn.Config, times: StopTimes, sockets: list[socket.socket]) -> None:
    """The main function of a worker."""
    with contextlib.suppress(AttributeError, OSError):
        # Linux only. Without it, a worker whose parent was killed would hold the port for ever.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid != os.getppid():
        # The parent was killed before the line above took effect.
        return
    _WorkerServer(config, times).run(sockets)


class _WorkerServer(StoppingServer):
    owns_listeners = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        for number in TOLD_BY:
            signal.signal(number, self._stop_alone)
        signal.signal(STOP, self._stop_with_all)
        signal.signal(HURRY, self.handle_exit)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, TOLD_BY)
        yield

    def _stop_alone(self, _number: int, _frame: FrameType | None) -> None:
        self.should_exit = True

    def _stop_with_all(self, _number: int, _frame: FrameType | None) -> None:
        self.owns_listeners = True
        self.should_exit = True
