"""Bringing the database to the newest schema; the migrations travel in the wheel."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.exc import SQLAlchemyError

from ignition_broker.storage.errors import translated


def migrate(url: str) -> str:
    """Runs what is missing and returns the version reached; to be called outside any event loop.

    Raises `storage.errors.StorageError`.
    """
    config = _config()
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    with translated():
        command.upgrade(config, "head")
    return newest_version()


def newest_version() -> str:
    """The version that this code was written for."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise SQLAlchemyError("the package holds no migrations")
    return head


def _config() -> Config:
    package = Path(__file__).resolve().parent.parent
    in_wheel = package / "migrations"
    config = Config()
    folder = in_wheel if in_wheel.is_dir() else package.parent.parent / "migrations"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    return config
