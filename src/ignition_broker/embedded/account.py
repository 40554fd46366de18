"""The account that Postgres runs as: the caller's own, or an unprivileged one if that is root."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from ignition_broker.embedded.errors import EmbeddedPostgresError

# The caller's PG* and locale variables must not reach the server.
ENVIRONMENT: Final = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}

# A process of another account may use the folder that it was started in, also if that lies below
# one that is closed to it, such as /root. Linux gives it this path.
HERE: Final = "/proc/self/cwd" if os.path.exists("/proc/self/cwd") else "."


@dataclass(frozen=True)
class Account:
    """The account that root runs Postgres as, since Postgres refuses to run as root."""

    uid: int
    gid: int

    def own(self, path: Path) -> None:
        """Makes the account the owner of a file or folder."""
        os.chown(path, self.uid, self.gid)


def account_for(cluster: Path) -> Account | None:
    """Returns None for an ordinary user; for root the owner of the cluster, or ``nobody`` if the
    cluster is new or root's. Raises `EmbeddedPostgresError` if there is no such account."""
    if os.geteuid() != 0:
        return None
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedPostgresError(
            "Postgres refuses to run as root, and there is no account 'nobody' to run it as"
        ) from None
    return Account(nobody.pw_uid, nobody.pw_gid)


def spawn(
    command: Sequence[str],
    account: Account | None,
    *,
    output: IO[bytes] | int,
    folder: Path = Path("/"),
    stdin: IO[bytes] | int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Starts a program as that account in ``folder``, which the program knows as `HERE`.

    It gets a session of its own, so that a terminal's Ctrl-C reaches this process alone.
    """
    return subprocess.Popen(  # noqa: S603  (a list, no shell)
        command,
        stdin=stdin,
        stdout=output,
        stderr=output,
        cwd=folder,
        env=ENVIRONMENT,
        start_new_session=True,
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
        umask=0o077,
    )
