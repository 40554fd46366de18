"""The embedded Postgres server: its process and its databases."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, Self

from ignition_broker.embedded import keep
from ignition_broker.embedded.account import ENVIRONMENT, HERE, Account, account_for, spawn
from ignition_broker.embedded.cluster import first_complaint, make_cluster
from ignition_broker.embedded.errors import EmbeddedPostgresError
from ignition_broker.embedded.predecessor import end_predecessor
from ignition_broker.embedded.wheel import are_open_to_others, copied, programs

StopMode = Literal["fast", "immediate"]

_SUPERUSER = "postgres"
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_STOP_SIGNALS: Mapping[StopMode, signal.Signals] = {
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}


class EmbeddedPostgres:
    """A server on 127.0.0.1 whose data stays in ``directory`` from one start to the next.

    ``port`` None: the last one used, or any free one. ``fsync=False`` is for tests: what was
    committed survives a killed server, though not a power cut.
    """

    def __init__(self, directory: Path, *, port: int | None = None, fsync: bool = True) -> None:
        self._directory = directory.absolute()
        self._wanted_port = port
        self._fsync = fsync
        self._port: int | None = None
        self._password = ""
        self._account: Account | None = None
        self._programs: Path | None = None
        self._copy: TemporaryDirectory[str] | None = None
        self._lock: int | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port. The next start uses it again if it is still free."""
        if self._port is None:
            raise EmbeddedPostgresError("the embedded Postgres was not started")
        return self._port

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        if self._server is None:
            raise EmbeddedPostgresError("the embedded Postgres is not running")
        return self._server.pid

    def url(self, database: str) -> str:
        """The URL of a database, for SQLAlchemy's asyncpg dialect."""
        login = f"{_SUPERUSER}:{self._password}"
        return f"postgresql+asyncpg://{login}@127.0.0.1:{self.port}/{database}"

    def binary(self, name: str) -> Path:
        """The path of a program of the wheel, such as ``pg_dump`` or ``psql``."""
        return (self._programs or programs()) / name

    def start(self) -> None:
        """Returns once connections are accepted; the first start makes the cluster.

        Raises `EmbeddedPostgresError`, also if another process uses the directory.
        """
        installed = programs()
        if self._lock is not None:
            raise EmbeddedPostgresError(
                f"{self._directory} is already in use by process {os.getpid()}"
            )
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._directory = self._directory.resolve()
            self._lock = keep.lock(self._directory)
            self._account = account_for(self._cluster)
            self._programs = self._reachable(installed)
            self._password = keep.password(self._directory)
            make_cluster(
                self._directory,
                self._programs,
                self._account,
                superuser=_SUPERUSER,
                log=self._log,
                fsync=self._fsync,
            )
            end_predecessor(self._cluster)
            self._launch(self._wanted_port)
        except OSError as error:
            self.stop("immediate")
            raise EmbeddedPostgresError(f"cannot use {self._directory}: {error}") from error
        except BaseException:
            self.stop("immediate")
            raise

    def stop(self, mode: StopMode = "fast") -> None:
        """Ends the server and releases the directory; a second time does nothing."""
        self._halt(mode)
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = self._programs = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def restart(self, mode: StopMode = "fast") -> None:
        """Stops and starts the server on the same port."""
        port = self.port
        self._halt(mode)
        self._launch(port)

    def create_database(self, name: str, *, template: str | None = None) -> None:
        """Makes a database, empty or as the copy of one that nobody is connected to."""
        copied = f" TEMPLATE {_quoted(template)} STRATEGY file_copy" if template else ""
        self._execute(f"CREATE DATABASE {_quoted(name)}{copied}")

    def drop_database(self, name: str) -> None:
        """Drops a database and closes its connections; a missing one is no error."""
        self._execute(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")

    @property
    def _cluster(self) -> Path:
        return self._directory / "data"

    @property
    def _log(self) -> Path:
        return self._directory / "server.log"

    def _reachable(self, installed: Path) -> Path:
        if self._account is None or are_open_to_others(installed):
            return installed
        self._copy = TemporaryDirectory(prefix="ignition-broker-postgres-")
        return copied(installed, self._copy)

    def _launch(self, wanted_port: int | None) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            port = wanted_port or keep.free_port(self._directory)
            if self._is_serving(port, deadline):
                self._port = port
                keep.remember_port(self._directory, port)
                return
            words = first_complaint(self._log)
            if wanted_port and not keep.is_free(wanted_port):
                raise EmbeddedPostgresError(f"port {wanted_port} is taken by another program")
            # Worth another try: somebody took the free port meanwhile, or the backends of a killed
            # postmaster have not noticed yet.
            is_passing = "TCP/IP sockets" in words or "shared memory block" in words
            if not is_passing or time.monotonic() > deadline:
                raise EmbeddedPostgresError(f"Postgres did not start: {words}")
            threading.Event().wait(0.1)

    def _is_serving(self, port: int, deadline: float) -> bool:
        settings = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories="]
        settings += ["max_connections=200"]
        # Names the cluster in the command line, by which `end_predecessor` knows the process.
        settings += [f"embedded.directory={self._cluster}"]
        if not self._fsync:
            # Not synchronous_commit: what was committed must survive a killed server.
            settings += ["fsync=off", "full_page_writes=off"]
        command = [str(self.binary("postgres")), "-D", HERE]
        command += [part for setting in settings for part in ("-c", setting)]
        with self._log.open("wb") as log:
            self._server = spawn(command, self._account, output=log, folder=self._cluster)
        # The pipe to this shell closes when this process ends, also by SIGKILL. PR_SET_PDEATHSIG
        # would stop the server already when the thread that called `start` ends.
        watch = ["/bin/sh", "-c", 'read -r line; kill -INT "$1"', "sh", str(self._server.pid)]
        self._watcher = spawn(
            watch, self._account, output=subprocess.DEVNULL, stdin=subprocess.PIPE
        )
        while self._server.poll() is None and time.monotonic() < deadline:
            if self._is_ready():
                return True
            threading.Event().wait(0.01)
        self._halt("immediate")
        return False

    def _is_ready(self) -> bool:
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _halt(self, mode: StopMode) -> None:
        if self._server is not None:
            for stop_signal in (_STOP_SIGNALS[mode], signal.SIGQUIT, signal.SIGKILL):
                self._server.send_signal(stop_signal)
                try:
                    self._server.wait(_STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
                break
            self._server = None
        if self._watcher is not None:
            self._watcher.kill()
            self._watcher.communicate()
            self._watcher = None

    def _execute(self, statement: str) -> None:
        command = [str(self.binary("psql")), "--no-psqlrc", "--quiet", "--host=127.0.0.1"]
        command += [f"--port={self.port}", f"--username={_SUPERUSER}", "--dbname=postgres"]
        outcome = subprocess.run(  # noqa: S603  (a list, no shell; the name was checked)
            [*command, "--command", statement],
            env={**ENVIRONMENT, "PGPASSWORD": self._password},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if outcome.returncode != 0:
            raise EmbeddedPostgresError(" ".join(outcome.stderr.split()))


def _quoted(database: str) -> str:
    if re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", database) is None:
        raise EmbeddedPostgresError(f"{database!r} is no plain database name")
    return f'"{database}"'
