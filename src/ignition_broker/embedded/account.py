"""Whom Postgres runs as: the caller, or an unprivileged account where the caller is root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ignition_broker.embedded.errors import EmbeddedPostgresError

# The caller's PG* and locale variables must not reach the server.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True)
class Account:
    """An account that root steps down to; Postgres refuses to run as root."""

    uid: int
    gid: int
    keeps_file_access: bool

    def own(self, path: Path) -> None:
        """Hand a file or folder over to the account."""
        os.chown(path, self.uid, self.gid)


def account_for(cluster: Path, programs: Path) -> Account | None:
    """None for an ordinary user; for root whoever owns the cluster, or nobody when it is new."""
    if os.geteuid() != 0:
        return None
    # `/root` is closed to others, and with it a checkout or virtual environment below it.
    is_closed = not (_is_open_to_others(cluster) and _is_open_to_others(programs))
    if is_closed and shutil.which("setpriv") is None:
        raise EmbeddedPostgresError(
            f"root needs the command setpriv (util-linux) to run Postgres in {cluster.parent}"
        )
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid, keeps_file_access=is_closed)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedPostgresError(
            "Postgres refuses to run as root, and there is no account 'nobody' to run it as"
        ) from None
    return Account(nobody.pw_uid, nobody.pw_gid, keeps_file_access=is_closed)


def spawn(
    command: Sequence[str],
    account: Account | None,
    *,
    output: IO[bytes] | int,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start it as that account, in a session of its own: a terminal's Ctrl-C is for us alone."""
    uid: int | None = None
    gid: int | None = None
    groups: list[int] | None = None
    if account is not None and account.keeps_file_access:
        command = [*_stepped_down_with_file_access(account), *command]
    elif account is not None:
        uid, gid, groups = account.uid, account.gid, []
    return subprocess.Popen(  # noqa: S603  (a list, no shell)
        command,
        stdin=stdin,
        stdout=output,
        stderr=output,
        cwd="/",
        env=ENVIRONMENT,
        start_new_session=True,
        user=uid,
        group=gid,
        extra_groups=groups,
        umask=0o077,
    )


def _stepped_down_with_file_access(account: Account) -> list[str]:
    # Nothing is copied out or opened up: the account keeps root's one right to pass closed folders.
    # The securebit is for access(2), by which initdb looks for postgres: it judges by the real uid.
    return [
        "setpriv",
        f"--reuid={account.uid}",
        f"--regid={account.gid}",
        "--clear-groups",
        "--inh-caps=-all,+dac_override",
        "--ambient-caps=-all,+dac_override",
        "--securebits=+no_setuid_fixup",
        "--",
    ]


def _is_open_to_others(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in path.parents)
