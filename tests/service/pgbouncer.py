"""A real pgbouncer in front of a Postgres."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.conftest import free_port, wait_until

# Debian has it in /usr/sbin, which is not on every user's path.
BINARY = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")


@dataclass
class PgBouncer:
    """``settings``: further lines of its file; ``url``: of the database behind it."""

    folder: Path
    behind: str
    settings: dict[str, str]
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        parts = urlsplit(self.behind)
        there = f"{parts.username}:{parts.password}@127.0.0.1:{self.port}"
        return parts._replace(netloc=there).geturl()

    def start(self) -> PgBouncer:
        assert BINARY is not None, "pgbouncer is not installed; `make pgbouncer` does it"
        self.port = self.port or free_port()
        self._write()
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [BINARY, str(self.folder / "pgbouncer.ini")],
                stdout=log,
                stderr=log,
                # It refuses to run as root.
                user="nobody" if os.getuid() == 0 else None,
            )
        wait_until(self._answers, 10, f"pgbouncer's start ({self.log_text()})")
        return self

    def reload(self, **settings: str) -> None:
        """As an operator changes a setting of one that runs."""
        assert self.process is not None
        self.settings.update(settings)
        self._write()
        reloads = self.log_text().count("got SIGHUP")
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.log_text().count("got SIGHUP") > reloads, 5, "pgbouncer's reload")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(5)
            self.process = None

    def log_text(self) -> str:
        return (self.folder / "log").read_text()

    def _write(self) -> None:
        parts = urlsplit(self.behind)
        lines = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "plain",
            "auth_file": f"{self.folder}/users",
            **self.settings,
        }
        (self.folder / "users").write_text(f'"{parts.username}" "{parts.password}"\n')
        (self.folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={parts.port}\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in lines.items())
        )

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextlib.contextmanager
def pgbouncer(behind: str, **settings: str) -> Iterator[PgBouncer]:
    with tempfile.TemporaryDirectory(prefix="ib-pgbouncer-") as name:
        os.chmod(name, 0o755)
        started = PgBouncer(Path(name), behind, settings).start()
        try:
            yield started
        finally:
            started.stop()
