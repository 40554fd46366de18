"""The migrations on a real Postgres."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.ext.asyncio import create_async_engine
from tests.conftest import sql

from ignition_broker.storage.tables import metadata


async def test_the_migrations_end_in_the_tables_that_the_code_knows(database_url):
    engine = create_async_engine(database_url)
    async with engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), metadata)
        )
    await engine.dispose()
    assert differences == []


def test_what_falls_due_and_what_expires_is_found_by_an_index(postgres, database_url):
    """A million grants are looked through once a second by every replica."""
    sql(
        postgres,
        database_url,
        "INSERT INTO tenants SELECT 'n' || n FROM generate_series(1, 20000) n",
    )
    sql(
        postgres,
        database_url,
        "INSERT INTO grants (tenant_id, status, version, next_refresh_at) "
        "SELECT id, 'connected', 1, now() + interval '1 day' FROM tenants",
    )
    sql(postgres, database_url, "ANALYZE grants")
    plan = sql(
        postgres,
        database_url,
        "EXPLAIN SELECT tenant_id FROM grants WHERE next_refresh_at < now() "
        "AND status = 'connected' ORDER BY next_refresh_at LIMIT 50 FOR UPDATE SKIP LOCKED",
    )
    assert "grants_due" in plan
    assert "Seq Scan" not in plan
