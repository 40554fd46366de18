"""The folder of data that `initdb` makes at the first start."""

from __future__ import annotations

import shutil
from pathlib import Path

from ignition_broker.embedded.account import HERE, Account, spawn
from ignition_broker.embedded.errors import EmbeddedPostgresError
from ignition_broker.embedded.wheel import MAJOR


def make_cluster(
    directory: Path,
    programs: Path,
    account: Account | None,
    *,
    superuser: str,
    log: Path,
    fsync: bool,
) -> None:
    """Makes ``directory/data``, with the password in ``directory/password``, if it isn't there.

    Raises `EmbeddedPostgresError` if another release of Postgres made it, or initdb fails.
    """
    cluster = directory / "data"
    if cluster.exists():
        major = (cluster / "PG_VERSION").read_text().strip()
        if major != MAJOR:
            raise EmbeddedPostgresError(
                f"{cluster} was written by Postgres {major}, this one is {MAJOR}: "
                "move the directory away to begin anew"
            )
        return
    # Made under another name and renamed, so that a killed initdb leaves no half-made cluster.
    unfinished = directory / "data.partial"
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(mode=0o700)
    if account is not None:
        account.own(unfinished)
        account.own(directory / "password")
    command = [str(programs / "initdb"), f"--pgdata={HERE}", f"--username={superuser}"]
    command += ["--pwfile=/dev/stdin", "--auth=scram-sha-256"]
    command += ["--encoding=UTF8", "--no-locale", "--locale-provider=builtin"]
    command += ["--builtin-locale=C.UTF-8", "--no-instructions"]
    command += [] if fsync else ["--no-sync"]
    with log.open("wb") as output, (directory / "password").open("rb") as password:
        initdb = spawn(command, account, output=output, folder=unfinished, stdin=password)
        if initdb.wait() != 0:
            raise EmbeddedPostgresError(f"initdb failed: {first_complaint(log)}")
    unfinished.rename(cluster)


def first_complaint(log: Path) -> str:
    """The first error in the log, because what follows it are hints and farewells."""
    lines = log.read_text(errors="replace").splitlines()
    complaints = [line for line in lines if "FATAL:" in line or "error:" in line]
    return next(iter([*complaints, *reversed(lines)]), f"nothing in {log}")
