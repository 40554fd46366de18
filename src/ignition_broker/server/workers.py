"""`serve --workers N`: processes that share the listening sockets. One that ends is replaced.

The parent passes the first SIGTERM or SIGINT on as `STOP` and a further one as `HURRY`. A terminal
and some supervisors send their signal to all processes at once, so that a worker which took its own
second SIGTERM for haste would have no drain.
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
        """Until all have ended; False where one could not start."""
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
                    # It would fail in the same way again.
                    could_start = False
                    self._stop()
                    continue
                log.error("worker_ended", pid=worker.pid, exit_code=worker.exitcode)
                self._start()
        return could_start

    def _start(self) -> None:
        worker = _spawn.Process(target=work, args=(self._config, self._times, self._sockets))
        # The worker inherits this, until it can stop in order.
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
        # Else what waits to be accepted when the last worker closes its own would be reset later.
        for each in self._sockets:
            each.close()

    def _send(self, number: int) -> None:
        for worker in self._running:
            with contextlib.suppress(ProcessLookupError):
                if worker.pid is not None:
                    os.kill(worker.pid, number)


def work(config: uvicorn.Config, times: StopTimes, sockets: list[socket.socket]) -> None:
    """What a worker does."""
    with contextlib.suppress(AttributeError, OSError):
        # Linux alone. A worker whose parent was killed would hold the port for ever.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid != os.getppid():
        # It was killed before this one asked to be told.
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
