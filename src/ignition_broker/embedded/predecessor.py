"""The server that a killed owner left running, or the traces of one that a power cut ended."""

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
    """Call it with the directory's lock held: whoever runs there has lost its owner."""
    pid_file = cluster / "postmaster.pid"
    try:
        first, *rest = pid_file.read_text().splitlines(keepends=True)
        pid = int(first)
    except (FileNotFoundError, ValueError):
        return
    command = _command_line(pid)
    if str(cluster) in command:
        for stop_signal in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            if _has_ended(pid, cluster, stop_signal):
                return
        raise EmbeddedPostgresError(f"an older Postgres, process {pid}, cannot be stopped")
    if command:
        # The id went to a stranger since. Postgres would refuse to start, but takes its own
        # parent's id for stale, and still makes sure that no backend holds the shared memory.
        pid_file.write_text("".join([f"{os.getpid()}\n", *rest]))


def _has_ended(pid: int, cluster: Path, stop_signal: signal.Signals) -> bool:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    try:
        os.kill(pid, stop_signal)
    except ProcessLookupError:
        return True
    while str(cluster) in _command_line(pid):
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.02)
    return True


def _command_line(pid: int) -> str:
    """Empty when there is no such process."""
    if os.path.exists("/proc/self/cmdline"):
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            return ""
    command = ["ps", "-o", "command=", "-p", str(pid)]
    listing = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return listing.stdout.strip()
