"""Migrates the database to the newest schema. The wheel contains the migrations."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import SchemaUnfit, StorageFault, translated


def migrate(url: str) -> str:
    """Runs the missing migrations and returns the version reached. Not for use in an event loop.

    Raises `StorageError`: `SessionsNotKept` behind a pooler that does not keep sessions,
    `SchemaUnfit` if the schema's version is unknown to this release.
    """
    # Imported here, because the service starts faster without it.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    asyncio.run(_check(url))
    config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    try:
        with translated():
            command.upgrade(config, "head")
    except CommandError:
        # Another release migrated between the check and this.
        asyncio.run(_check(url))
        raise
    return newest_version()


async def _check(url: str) -> None:
    database = Database(url, pool_size=1)
    try:
        found = await database.schema_version()
    finally:
        await database.aclose()
    if found is not None and found not in _versions():
        raise SchemaUnfit(
            f"the schema is at {found}, which this release does not know (its newest is "
            f"{newest_version()}); run the migrate of the release that made it, or of a newer one"
        )


def newest_version() -> str:
    """The version that this release was written for: the number of the last migration."""
    versions = _versions()
    if not versions:
        raise StorageFault("the package holds no migrations")
    return versions[-1]


def _versions() -> list[str]:
    """All versions that this release knows, in order."""
    files = (_folder() / "versions").glob("[0-9][0-9][0-9][0-9]_*.py")
    return sorted(file.name[:4] for file in files)


def _folder() -> Path:
    package = Path(__file__).resolve().parent.parent
    in_wheel = package / "migrations"
    return in_wheel if in_wheel.is_dir() else package.parent.parent / "migrations"
