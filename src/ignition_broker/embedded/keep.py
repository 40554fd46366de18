"""The files beside the cluster: the lock, the password and the last port."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
from pathlib import Path

from ignition_broker.embedded.errors import EmbeddedPostgresError

# Below the ports of outgoing connections, so that none of those takes it during a restart.
_LOWEST_PORT, _HIGHEST_PORT = 15_000, 32_000


def lock(directory: Path) -> int:
    """Locks the directory and returns the lock's descriptor; closing it, or the end of the process,
    unlocks it. Raises `EmbeddedPostgresError` if another process has it."""
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 20).decode() or "unknown"
        os.close(descriptor)
        raise EmbeddedPostgresError(f"{directory} is already in use by process {owner}") from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def password(directory: Path) -> str:
    """The superuser's password, made at the first start and readable by its owner alone."""
    path = directory / "password"
    if not path.exists():
        unfinished = directory / "password.partial"
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24))
        unfinished.rename(path)
    return path.read_text()


def free_port(directory: Path) -> int:
    """The port used last if it is still free, else any free one."""
    try:
        remembered = int((directory / "port").read_text())
    except (FileNotFoundError, ValueError):
        remembered = 0
    if remembered and is_free(remembered):
        return remembered
    while not is_free(port := _LOWEST_PORT + secrets.randbelow(_HIGHEST_PORT - _LOWEST_PORT)):
        pass
    return port


def remember_port(directory: Path, port: int) -> None:
    """Keeps the port for the next start, so that the database's URL stays the same."""
    (directory / "port").write_text(str(port))


def is_free(port: int) -> bool:
    """Whether Postgres could listen on the port. Like Postgres, it may be one of closed connections
    that are still in TIME_WAIT."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
