"""The migrations on a real Postgres."""

from __future__ import annotations

import asyncio
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
from tests.service.locks import locked

from ignition_broker.broker.admins.makers import ANY_SETTINGS
from ignition_broker.broker.grants.connect_links import list_links
from ignition_broker.storage import leases
from ignition_broker.storage.database import Database
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


def test_what_falls_due_at_another_client_is_found_by_an_index_of_its_own(postgres, database_url):
    """Although all of the default client's is overdue, as while that one's Ignition is down."""
    sql(
        postgres,
        database_url,
        "INSERT INTO tenants SELECT 'd' || n || CASE WHEN n <= 5 THEN '@sandbox' ELSE '' END "
        "FROM generate_series(1, 20000) n",
    )
    sql(
        postgres,
        database_url,
        "INSERT INTO grants (tenant_id, status, version, next_refresh_at) "
        "SELECT id, 'connected', 1, now() - interval '1 day' FROM tenants WHERE id LIKE 'd%'",
    )
    sql(postgres, database_url, "ANALYZE grants")
    conditions = leases.CLAIM_DUE_OF_OTHER.text.split("WHERE")[1].split("next_refresh_at")[0]
    of_sandbox = conditions.replace(":client", "'sandbox'")
    plan = sql(
        postgres,
        database_url,
        f"EXPLAIN SELECT tenant_id FROM grants WHERE {of_sandbox} "
        "next_refresh_at < now() AND status = 'connected' ORDER BY next_refresh_at LIMIT 50 "
        "FOR UPDATE SKIP LOCKED",
    )
    assert "grants_due_of_others" in plan
    assert "Seq Scan" not in plan
    sql(postgres, database_url, "DELETE FROM grants WHERE tenant_id LIKE 'd%'")


def test_the_release_before_goes_on_with_tenants_and_grants_of_the_default_client(
    postgres, database_url
):
    """By its own statements: it names neither of the new columns."""
    for statement in (
        "INSERT INTO tenants (id) VALUES ('before') ON CONFLICT DO NOTHING",
        "INSERT INTO tenants (id) VALUES ('before') ON CONFLICT DO NOTHING",
        "UPDATE tenants SET generation = generation + 1 WHERE id = 'before' RETURNING generation",
        "INSERT INTO tenants (id) VALUES ('before@sandbox')",
    ):
        sql(postgres, database_url, statement)
    apart = "SELECT tenant, client, generation FROM tenants WHERE id LIKE 'before%' ORDER BY id"
    assert sql(postgres, database_url, apart).splitlines() == [
        "before|default|1",
        "before|sandbox|0",
    ]


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
    log = idle_broker.folder / "first-release.log"
    serving = subprocess.Popen(
        [sys.executable, "-m", "ignition_broker", "serve"],
        env=idle_broker.environment,
        cwd=idle_broker.folder,
        stderr=log.open("wb"),
    )
    try:
        with idle_broker.client() as admin, idle_broker.client(key) as service:
            unready = wait_until(lambda: service.get("/readyz"), 40)
            assert unready.status_code == 503
            told = f"the schema is 0001, not {newest_version()}; run: migrate"
            assert unready.json()["detail"] == told
            # A request that needs the new schema is 503 until it is migrated, as for /token.
            for path in ("/admin/tenants", "/admin/audit", "/admin/api-keys", "/token/nobody"):
                lacking = admin.get(path)
                if lacking.status_code != 200:
                    assert lacking.status_code == 503, f"{path}: {lacking.text}"
                    assert lacking.json()["type"] == "urn:ignition-broker:unavailable"
                    assert lacking.headers["Retry-After"] == "1"
            assert lacking.status_code == 503
            assert admin.get("/admin/audit").status_code == 503
            assert idle_broker.command("migrate").returncode == 0
            assert service.delete("/proxy/nobody/x").status_code == 404
            assert service.get("/readyz").json() == {"status": "ready"}
            sql(postgres, url, "UPDATE alembic_version SET version_num = '9999'")
            for _ in range(3):
                ready = service.get("/readyz")
                assert ready.status_code == 200
                note = f"the schema is 9999, newer than {newest_version()}, which this release"
                assert ready.json()["note"].startswith(note)
            for newer in (idle_broker.command("migrate"), idle_broker.command("migrate")):
                assert (newer.returncode, newer.stdout) == (1, "")
                [line] = newer.stderr.splitlines()
                unknown = "the schema is at 9999, which this release does not know"
                assert f"{unknown} (its newest is {newest_version()})" in line
                assert "run the migrate of the release that made it" in line
            sql(postgres, url, "UPDATE api_keys SET revoked_at = now()")
            sql(postgres, url, FIRST_RELEASE_WRITES.format(hash=sha256(key + "2")))
        with idle_broker.client(key + "2") as service:
            assert service.delete("/proxy/nobody/x").status_code == 404
    finally:
        serving.terminate()
        serving.wait(30)
    assert log.read_text().count('"schema_newer"') == 1


def test_each_tenant_says_whether_it_has_a_grant_whichever_release_adds_it(postgres):
    name = "broker_before_the_mark"
    postgres.create_database(name)
    url = postgres.url(name)
    migrate_to("0019", url)
    sql(postgres, url, "INSERT INTO tenants (id) VALUES ('with'), ('without')")
    grant = "INSERT INTO grants (tenant_id, status, version) VALUES ('{}', 'connected', 1)"
    sql(postgres, url, grant.format("with"))
    migrate_to("head", url)

    def marked() -> str:
        return sql(
            postgres, url, "SELECT string_agg(id, ' ' ORDER BY id) FROM tenants WHERE has_grant"
        )

    assert marked() == "with"
    sql(postgres, url, "INSERT INTO tenants (id) VALUES ('later')")
    assert marked() == "with"
    again = " ON CONFLICT (tenant_id) DO UPDATE SET version = grants.version + 1"
    for tenant in ("later", "without", "later", "with"):
        sql(postgres, url, grant.format(tenant) + again)
    assert marked() == "later with without"
    sql(postgres, url, "DELETE FROM grants WHERE tenant_id <> 'later'")
    assert marked() == "later"


def test_a_migration_that_finds_a_table_locked_says_so(idle_broker, postgres):
    """By the name and number that Postgres' documentation has for it."""
    postgres.create_database("broker_that_is_locked")
    url = postgres.url("broker_that_is_locked")
    migrate_to("0001", url)
    kept = idle_broker.settings["DATABASE_URL"]
    idle_broker.settings["DATABASE_URL"] = url
    try:
        with locked(postgres, url, "LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE"):
            ended = idle_broker.command("migrate")
        assert (ended.returncode, ended.stdout) == (1, "")
        [line] = ended.stderr.splitlines()
        assert "lock not available (SQLSTATE 55P03)" in line
        assert idle_broker.command("migrate").returncode == 0
    finally:
        idle_broker.settings["DATABASE_URL"] = kept


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


OLD_LINK = """
    INSERT INTO connect_links (token_hash, tenant_id, expires_at, created_by)
    VALUES ('\\x{hash}', 'acme', now() + interval '{days} days', '{maker}')
"""
OLD_KEY = """
    INSERT INTO api_keys (name, key_hash, scopes, tenants, created_at, revoked_at)
    VALUES ('{name}', '{name}', '{{admin}}', '{{}}', now() - interval '30 days', {revoked})
"""


async def test_links_of_the_release_before_end_with_their_key_and_it_may_go_on_making_them(
    postgres,
):
    name = "broker_with_old_links"
    postgres.create_database(name)
    url = postgres.url(name)
    await asyncio.to_thread(migrate_to, "0007", url)
    sql(postgres, url, "INSERT INTO tenants VALUES ('acme')")
    sql(postgres, url, OLD_KEY.format(name="live", revoked="NULL"))
    sql(postgres, url, OLD_KEY.format(name="revoked", revoked="now()"))
    sql(postgres, url, OLD_KEY.format(name="anew", revoked="NULL"))
    sql(postgres, url, "UPDATE api_keys SET created_at = now() WHERE name = 'anew'")
    for number, maker in enumerate(("live", "revoked", "anew", "cli", "bootstrap-admin")):
        sql(postgres, url, OLD_LINK.format(hash=f"0{number}", days=6, maker=maker))
    await asyncio.to_thread(migrate_to, "head", url)
    sql(postgres, url, OLD_LINK.format(hash="09", days=7, maker="of an old replica"))
    sql(
        postgres,
        url,
        "INSERT INTO authorizations (state_hash, tenant_id, code_verifier, browser_hash, "
        "expires_at, actor) VALUES ('s', 'acme', 'v', 'b', now(), 'old')",
    )
    database = Database(url, pool_size=1)
    try:
        listed = await list_links(database, "acme", ANY_SETTINGS)
    finally:
        await database.aclose()
    makers = {link.created_by for link in listed}
    assert makers == {"live", "cli", "bootstrap-admin", "of an old replica"}
    assert len({link.id for link in listed}) == 4


def migrate_to(version: str, url: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[2] / "migrations"))
    config.set_main_option("sqlalchemy.url", url)
    command.upgrade(config, version)
