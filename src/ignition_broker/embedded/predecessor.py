"""What an earlier owner of the directory left behind: a running server, or a stale pid file."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from ignition_broker.embedded.errors import EmbeddedPostgresError

_PATIENCE_SECONDS = 5.0


def end_predecessor(cluster: Path) -> None:
    """Stops a server that outlived its owner. The caller holds the directory's lock.

    Raises `EmbeddedPostgresError` if it can't be stopped.
    """
    pid_file = cluster / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().splitlines()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return
    command = _command_line(pid)
    if str(cluster) in command:
        _stop(pid, cluster)
    elif command:
        # Another program has this process id by now, so Postgres would refuse to start. If no
        # process had it, Postgres would itself find the file to be stale.
        pid_file.unlink()


def _stop(pid: int, cluster: Path) -> None:
    os.kill(pid, signal.SIGQUIT)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while str(cluster) in _command_line(pid):
        if time.monotonic() > deadline:
            raise EmbeddedPostgresError(f"an older Postgres, process {pid}, cannot be stopped")
        threading.Event().wait(0.02)


def _command_line(pid: int) -> str:
    """Empty if there is no such process."""
    if os.path.exists("/proc/self/cmdline"):
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            return ""
    command = ["ps", "-o", "command=", "-p", str(pid)]
    listing = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return listing.stdout.strip()
