"""The migrations on a real Postgres."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy.ext.asyncio import create_async_engine
from tests.conftest import sha256, sql, wait_until

from ignition_broker.storage.schema import newest_version
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


FIRST_RELEASE_WRITES = """
    INSERT INTO api_keys (name, key_hash, scopes, tenants, expires_at)
    VALUES ('old', '\\x{hash}', '{{proxy}}', '{{*}}', NULL)
    ON CONFLICT (name) DO UPDATE
    SET key_hash = excluded.key_hash, scopes = excluded.scopes, tenants = excluded.tenants,
        expires_at = excluded.expires_at, created_at = now(), revoked_at = NULL,
        last_used_at = NULL
    WHERE api_keys.revoked_at IS NOT NULL
    RETURNING name, scopes, tenants, created_at, expires_at, revoked_at, last_used_at
"""


def test_a_replica_is_ready_once_the_schema_is_its_own_or_newer(idle_broker, postgres):
    """And keys that were made before, or that a replica of the release before makes, hold."""
    name = "broker_of_the_first_release"
    postgres.create_database(name)
    url = postgres.url(name)
    migrate_to("0001", url)
    key = "ibk_" + "k" * 40
    sql(postgres, url, FIRST_RELEASE_WRITES.format(hash=sha256(key)))
    idle_broker.settings["DATABASE_URL"] = url
    serving = subprocess.Popen(
        [sys.executable, "-m", "ignition_broker", "serve"],
        env=idle_broker.environment,
        cwd=idle_broker.folder,
        stderr=subprocess.DEVNULL,
    )
    try:
        with idle_broker.client(key) as service:
            unready = wait_until(lambda: service.get("/readyz"), 40)
            assert unready.status_code == 503
            told = f"the schema is 0001, not {newest_version()}; run: migrate"
            assert unready.json()["detail"] == told
            assert idle_broker.command("migrate").returncode == 0
            assert service.get("/readyz").status_code == 200
            assert service.delete("/proxy/nobody/x").status_code == 404
            sql(postgres, url, "UPDATE alembic_version SET version_num = '9999'")
            assert service.get("/readyz").status_code == 200
            sql(postgres, url, "UPDATE api_keys SET revoked_at = now()")
            sql(postgres, url, FIRST_RELEASE_WRITES.format(hash=sha256(key + "2")))
        with idle_broker.client(key + "2") as service:
            assert service.delete("/proxy/nobody/x").status_code == 404
    finally:
        serving.terminate()
        serving.wait(30)


def test_events_of_the_release_before_stay_and_those_it_goes_on_to_write_are_chained(
    idle_broker, postgres
):
    postgres.create_database("broker_of_the_second_release")
    url = postgres.url("broker_of_the_second_release")
    event = "INSERT INTO audit_events (actor, action, outcome) VALUES ('old', 'connect', 'done')"
    migrate_to("0002", url)
    sql(postgres, url, event)
    migrate_to("0003", url)
    sql(postgres, url, event)
    kept = idle_broker.settings["DATABASE_URL"]
    idle_broker.settings["DATABASE_URL"] = url
    try:
        verdict = json.loads(idle_broker.command("audit", "verify", "--json").stdout)
    finally:
        idle_broker.settings["DATABASE_URL"] = kept
    assert verdict == {"events": 1, "unchained": 1, "findings": []}


def migrate_to(version: str, url: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[2] / "migrations"))
    config.set_main_option("sqlalchemy.url", url)
    command.upgrade(config, version)
