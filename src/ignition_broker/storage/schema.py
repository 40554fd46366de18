"""Bringing the database to the newest schema; the migrations travel in the wheel."""

from __future__ import annotations

from pathlib import Path

from ignition_broker.storage.errors import StorageFault, translated


def migrate(url: str) -> str:
    """Runs what is missing and returns the version reached; to be called outside any event loop.

    Raises `storage.errors.StorageError`.
    """
    # Here, since the service itself starts faster without it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    with translated():
        command.upgrade(config, "head")
    return newest_version()


def newest_version() -> str:
    """The version that this code was written for: the number that the last file begins with."""
    files = sorted((_folder() / "versions").glob("[0-9][0-9][0-9][0-9]_*.py"))
    if not files:
        raise StorageFault("the package holds no migrations")
    return files[-1].name[:4]


def _folder() -> Path:
    package = Path(__file__).resolve().parent.parent
    in_wheel = package / "migrations"
    return in_wheel if in_wheel.is_dir() else package.parent.parent / "migrations"
