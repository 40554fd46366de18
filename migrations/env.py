"""Runs the migrations one process at a time, and gives up rather than block the running service."""

from __future__ import annotations

import asyncio
import os

import asyncpg
from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from ignition_broker.storage.database import without_ssl
from ignition_broker.storage.tables import metadata
from ignition_broker.storage.tls import ssl_argument

ADVISORY_LOCK = 0x69676E62


def migrate(connection: Connection) -> None:
    connection.execute(text("SET lock_timeout = '5s'"))
    connection.execute(text("SET statement_timeout = '300s'"))
    context.configure(connection=connection, target_metadata=metadata, compare_type=True)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        context.run_migrations()
    connection.commit()


async def connect_and_migrate() -> None:
    url = context.config.get_main_option("sqlalchemy.url") or os.environ["DATABASE_URL"]
    target, mode = without_ssl(make_url(url))
    dsn = target.set(drivername="postgresql").render_as_string(hide_password=False)

    async def connect() -> asyncpg.Connection:
        # As the service connects: SQLAlchemy knows no `sslrootcert`.
        return await asyncpg.connect(dsn, ssl=ssl_argument(target, mode))

    engine = create_async_engine(
        "postgresql+asyncpg://", poolclass=pool.NullPool, async_creator=connect
    )
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


asyncio.run(connect_and_migrate())
