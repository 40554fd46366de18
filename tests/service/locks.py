"""Rows that an operator has locked, by psql on a connection of its own."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from ignition_broker.embedded import EmbeddedPostgres


@contextlib.contextmanager
def locked(postgres: EmbeddedPostgres, url: str, *statements: str) -> Iterator[None]:
    """A transaction that carried out ``statements`` and stays open until the end of the block."""
    command = [
        postgres.binary("psql"),
        url.replace("+asyncpg", ""),
        "-qAt",
        "-v",
        "ON_ERROR_STOP=1",
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as session:
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write(";\n".join(["BEGIN", *statements, "SELECT 'all is locked'"]) + ";\n")
        session.stdin.flush()
        for line in session.stdout:
            if line == "all is locked\n":
                break
        else:
            raise AssertionError(f"psql ended with {session.wait()}")
        try:
            yield
        finally:
            # Postgres notices late that a session has ended, and would hold the locks until then.
            session.communicate("ROLLBACK;\n", timeout=10)
