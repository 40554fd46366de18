"""An operator locks a row (`BEGIN; SELECT … FOR UPDATE`); nobody else has to wait."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from tests.conftest import sql, wait_until
from tests.service.locks import locked

from ignition_broker.broker.audit import verification as trail
from ignition_broker.model import AuditEvent, SealedLease
from ignition_broker.storage import (
    api_keys,
    audit,
    audit_chain,
    authorizations,
    callbacks,
    connect_links,
    grants,
    leases,
    restoring,
    rotation,
    sessions,
)
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageUnavailable
from ignition_broker.storage.key_notes import SealedRow
from ignition_broker.storage.sealed_tokens import Schedule, SealedTokens

LOCK = "SELECT FROM {table} WHERE {column} = {value} FOR UPDATE"
TENANTS = [f"t{number}" for number in range(4)]
OLD = "now() - interval '90 days'"

FILL = f"""
    TRUNCATE tenants, api_keys, sessions, audit_events, audit_heads CASCADE;
    UPDATE audit_chains SET pruned_position = 0, pruned_hash = '';
    INSERT INTO tenants (id) SELECT 't' || n FROM generate_series(0, 3) n;
    INSERT INTO grants (tenant_id, status, version, access_token, refresh_token, expires_at,
                        issued_at, next_refresh_at)
        SELECT id, 'connected', 1, 'sealed', 'sealed', now() + interval '1 hour', now(),
            now() - interval '1 hour' FROM tenants;
    INSERT INTO api_keys (name, key_hash, scopes, tenants)
        SELECT id, id::bytea, '{{token}}', '{{*}}' FROM tenants;
    INSERT INTO authorizations
            (state_hash, tenant_id, code_verifier, browser_hash, expires_at, actor)
        SELECT id::bytea, id, 'v', 'b', {OLD}, 'test' FROM tenants;
    INSERT INTO connect_links (token_hash, tenant_id, expires_at, created_by)
        SELECT id::bytea, id, {OLD}, 'test' FROM tenants;
    INSERT INTO callbacks (state_hash, browser_hash, tenant_id, taken_at)
        SELECT id::bytea, 'b', id, {OLD} FROM tenants;
    INSERT INTO sessions (token_hash, actor, begun_at, seen_at)
        SELECT id::bytea, id, {OLD}, now() FROM tenants;
"""


@pytest.fixture(scope="module")
def empty_url(postgres, database_url):
    """Another database, on which no broker runs."""
    name = database_url.rpartition("/")[2] + "_filled"
    postgres.create_database(name, template="template_broker")
    return postgres.url(name)


@pytest.fixture
def filled_url(postgres, empty_url):
    """With four rows to a table."""
    sql(postgres, empty_url, FILL)
    return empty_url


@pytest.fixture
async def database(filled_url) -> AsyncIterator[Database]:
    opened = Database(filled_url, pool_size=2)
    yield opened
    await opened.aclose()


async def quick(work):
    """What ``work`` gives, which must not have waited for a lock."""
    began = time.monotonic()
    given = await work
    assert time.monotonic() - began < 0.5
    return given


def lock_of(table: str, column: str, value: str = "'t1'") -> str:
    return LOCK.format(table=table, column=column, value=value)


async def test_use_is_noted_of_all_other_grants_and_later_of_the_locked_one(
    database, postgres, filled_url
):
    def noted() -> str:
        query = "SELECT string_agg(tenant_id, ' ' ORDER BY tenant_id) FROM grants WHERE "
        return sql(postgres, filled_url, query + "used_at IS NOT NULL")

    with locked(postgres, filled_url, lock_of("grants", "tenant_id")):
        left = await quick(
            database.single(lambda c: grants.note_use(c, TENANTS, lead_seconds=60.0))
        )
        assert left == ["t1"]
        assert noted() == "t0 t2 t3"
    assert await database.single(lambda c: grants.note_use(c, left, lead_seconds=60.0)) == []
    assert noted() == "t0 t1 t2 t3"


async def test_the_use_of_all_other_keys_is_noted(database, postgres, filled_url):
    with locked(postgres, filled_url, lock_of("api_keys", "name")):
        assert await quick(database.single(lambda c: api_keys.note_use(c, TENANTS))) == ["t1"]
    count = "SELECT count(*) FROM api_keys WHERE last_used_at IS NOT NULL"
    assert sql(postgres, filled_url, count) == "3"


async def test_what_falls_due_is_claimed_beside_a_locked_grant(database, postgres, filled_url):
    times = {"owner": "me", "lease_seconds": 0.1, "asked_at": 0.0, "use_before": 1.0}
    with locked(postgres, filled_url, lock_of("grants", "tenant_id")):
        due = await quick(database.single(lambda c: leases.claim_due(c, limit=10, **times)))
    assert sorted(lease.tenant for lease in due) == ["t0", "t2", "t3"]


async def test_a_locked_grant_is_not_claimed_and_nobody_waits_for_it(
    database, postgres, filled_url
):
    with locked(postgres, filled_url, lock_of("grants", "tenant_id")):
        claimed = await quick(
            database.single(
                lambda c: leases.claim(
                    c,
                    tenant="t1",
                    version=1,
                    owner="me",
                    lease_seconds=1.0,
                    asked_at=0.0,
                    use_before=1.0,
                    is_early=False,
                )
            )
        )
    assert claimed is None


async def test_a_store_gives_its_connection_back_while_its_row_is_locked(
    database, postgres, filled_url
):
    """It is tried again by whoever holds the answer."""
    lease = SealedLease("t1", 1, "me", b"", "", 0.0, False, 0, 0.0)
    owned = "UPDATE grants SET lease_owner = 'me' WHERE tenant_id = 't1'"
    sql(postgres, filled_url, owned)
    with locked(postgres, filled_url, lock_of("grants", "tenant_id")):
        for _ in range(2):
            with pytest.raises(StorageUnavailable):
                await quick(database.single(lambda c: leases.give_back(c, lease)))
    await database.single(lambda c: leases.give_back(c, lease))
    # The short timeout applied to that statement only.
    timeout = text("SELECT current_setting('lock_timeout')")
    assert await database.single(lambda c: c.scalar(timeout)) == "2s"


@pytest.mark.parametrize("is_news", [True, False])
async def test_tokens_stored_again_keep_out_of_the_way_of_a_connect(
    database, postgres, filled_url, is_news
):
    """Both insert the grant of a tenant that a restored database knows without one. The connect has
    locked the tenant, and must not find a grant that waits for that."""
    sql(postgres, filled_url, "INSERT INTO tenants (id) VALUES ('new')")
    sealed = SealedTokens(b"access-ciphertext", b"refresh-ciphertext", "Bearer", "read", 600.0, "k")

    def restored():
        return database.single(
            lambda c: restoring.restore(
                c,
                "new",
                sealed,
                Schedule(60.0, 60.0),
                AuditEvent("database_went_back", "restored", "test", "new"),
                version=7,
                connected_at=datetime.now(UTC),
                age_seconds=1.0,
                issued_at=None if is_news else datetime.now(UTC),
            )
        )

    with locked(postgres, filled_url, "SELECT FROM tenants WHERE id = 'new' FOR NO KEY UPDATE"):
        if is_news:
            with pytest.raises(StorageUnavailable):
                await quick(restored())
        else:
            assert await quick(restored()) is None
    stored = await restored()
    assert stored.found_version == 0
    assert sql(postgres, filled_url, "SELECT has_grant FROM tenants WHERE id = 'new'") == "t"


@pytest.mark.parametrize(
    ("table", "column", "clear"),
    [
        ("authorizations", "state_hash", authorizations.clear),
        ("callbacks", "state_hash", callbacks.clear),
        ("connect_links", "token_hash", connect_links.clear),
        ("sessions", "token_hash", sessions.clear),
    ],
)
async def test_housekeeping_leaves_a_locked_row_for_later(
    database, postgres, filled_url, table, column, clear
):
    with locked(postgres, filled_url, lock_of(table, column)):
        await quick(database.single(clear))
        assert (
            sql(
                postgres,
                filled_url,
                f"SELECT tenant.id FROM {table}, tenants AS tenant "
                f"WHERE tenant.id::bytea = {table}.{column}",
            )
            == "t1"
        )
    await database.single(clear)
    assert sql(postgres, filled_url, f"SELECT count(*) FROM {table}") == "0"


async def test_a_session_is_read_though_its_row_is_locked(database, postgres, filled_url):
    times = {"idle_seconds": 600.0, "lifetime_seconds": 600.0, "fresh_seconds": 600.0}
    origin = sessions.SessionOrigin("somebody")
    await database.single(lambda c: sessions.begin(c, b"live", origin))
    seen = "SELECT seen_at FROM sessions WHERE token_hash = 'live'"
    with locked(postgres, filled_url, lock_of("sessions", "token_hash", "'live'")):
        before = sql(postgres, filled_url, seen)
        live = await quick(database.once(lambda c: sessions.use(c, b"live", **times)))
        assert live is not None
        assert live.actor == "somebody"
    await database.once(lambda c: sessions.use(c, b"live", **times))
    assert sql(postgres, filled_url, seen) > before
    await database.single(lambda c: sessions.end(c, b"live"))
    assert await database.once(lambda c: sessions.use(c, b"live", **times)) is None


async def test_events_are_chained_and_heads_cleared_beside_a_locked_chain(
    database, postgres, filled_url
):
    events = [AuditEvent("test", "done", "me", f"t{number}") for number in range(3)]
    for _ in range(2):
        await database.single(lambda c: audit.append_many(c, events))
    first = sql(postgres, filled_url, "SELECT min(chain) FROM audit_events")
    chain = f"SELECT FROM audit_chains WHERE chain = {first} FOR UPDATE"
    head = f"SELECT FROM audit_heads WHERE chain = {first} AND position = 1 FOR UPDATE"
    with locked(postgres, filled_url, chain, head):
        await quick(database.single(lambda c: audit.append_many(c, events)))
        await quick(database.single(audit_chain.clear_heads))
    assert sql(postgres, filled_url, "SELECT count(*) FROM audit_heads") == "3"
    verdict = await trail.verify(database)
    assert (verdict.events, verdict.findings) == (9, [])


async def test_a_chain_is_pruned_up_to_a_locked_event(database, postgres, filled_url):
    events = [AuditEvent("pruned", "done", "me", "t0") for _ in range(6)]
    await database.single(lambda c: audit.append_many(c, events))
    one = "SELECT id FROM audit_events ORDER BY chain, position OFFSET 3 LIMIT 1"
    name = sql(postgres, filled_url, one)
    with locked(postgres, filled_url, f"SELECT FROM audit_events WHERE id = {name} FOR UPDATE"):
        gone = await quick(
            database.single(lambda c: audit_chain.prune(c, older_than_seconds=0.0, limit=100))
        )
        assert gone == 3
        assert (await trail.verify(database)).findings == []
    while await database.single(lambda c: audit_chain.prune(c, older_than_seconds=0.0, limit=100)):
        pass
    assert sql(postgres, filled_url, "SELECT count(*) FROM audit_events") == "0"
    assert (await trail.verify(database)).findings == []


async def test_events_from_before_there_were_chains_are_pruned_beside_a_locked_one(
    database, postgres, filled_url
):
    sql(
        postgres,
        filled_url,
        "ALTER TABLE audit_events DISABLE TRIGGER USER; "
        "INSERT INTO audit_events (actor, action, outcome) "
        "SELECT 'old', 'connect', 'done' FROM generate_series(1, 4); "
        "ALTER TABLE audit_events ENABLE TRIGGER USER",
    )
    lock = "SELECT FROM audit_events WHERE chain IS NULL ORDER BY id LIMIT 1 FOR UPDATE"
    with locked(postgres, filled_url, lock):
        gone = await quick(
            database.single(
                lambda c: audit_chain.prune_unchained(c, older_than_seconds=0.0, limit=100)
            )
        )
    assert gone == 3


async def test_a_rotation_of_keys_passes_over_a_locked_row(database, postgres, filled_url):
    rows = [SealedRow(tenant, b"sealed", b"sealed") for tenant in TENANTS]
    fresh = [SealedRow(tenant, b"resealed", b"resealed") for tenant in TENANTS]
    with locked(postgres, filled_url, lock_of("grants", "tenant_id")):
        replaced = await quick(
            database.once(
                lambda c: rotation.replace(c, list(zip(rows, fresh, strict=True)), newest="new")
            )
        )
    assert replaced == 3


TENANTS_SERVED = ["served-1", "served-2", "served-3"]


@pytest.fixture(scope="module")
def fake_options():
    return {"access_token_lifetime_seconds": 30}


@pytest.fixture(scope="module")
def connected(broker):
    for tenant in ["held", *TENANTS_SERVED]:
        broker.connect(tenant)
    return broker


def refreshed(broker, tenant: str):
    with broker.client() as admin:
        return admin.post(f"/token/{tenant}/refresh")


def test_one_locked_grant_holds_up_nobody_else(connected, postgres, database_url, fake):
    """And its own live token is served from memory, while a renewal of it is told to come again."""
    broker = connected
    key = broker.make_key("reader", ["token"], ["*"])
    with (
        broker.client(key) as service,
        broker.client() as admin,
        concurrent.futures.ThreadPoolExecutor(20) as pool,
        locked(postgres, database_url, lock_of("grants", "tenant_id", "'held'")),
    ):
        assert service.get("/token/held?min_ttl=1").status_code == 200
        waiting = [pool.submit(admin.post, "/token/held/refresh") for _ in range(20)]
        slowest, until = 0.0, time.monotonic() + 6
        while time.monotonic() < until:
            for tenant in TENANTS_SERVED:
                began = time.monotonic()
                answer = refreshed(broker, tenant)
                slowest = max(slowest, time.monotonic() - began)
                assert answer.status_code == 200, answer.text
            assert service.get("/token/held?min_ttl=1").status_code == 200
        assert slowest < 1.5
        for answer in (each.result() for each in waiting):
            assert answer.status_code == 503
            assert "locked" in answer.json()["detail"]
            assert int(answer.headers["Retry-After"]) >= 1
    assert refreshed(broker, "held").status_code == 200
    assert fake.counters()["refresh_token_reuses"] == 0


def test_answers_of_locked_grants_are_stored_later_and_their_wait_eats_no_pool(
    connected, postgres, database_url, fake
):
    """More answers wait to be stored than the pool has connections."""
    broker = connected
    many = [f"many-{number}" for number in range(16)]
    for tenant in many:
        broker.connect(tenant)
    fake.fail("token", len(many), delay_seconds=1.5)
    before = fake.counters()["refreshes"]
    lock = "SELECT FROM grants WHERE tenant_id LIKE 'many-%' FOR UPDATE"
    asked = "SELECT count(*) FROM grants WHERE tenant_id LIKE 'many-%' AND lease_until > now()"
    with broker.client() as admin, concurrent.futures.ThreadPoolExecutor(32) as pool:
        renewals = [pool.submit(admin.post, f"/token/{tenant}/refresh") for tenant in many]
        wait_until(lambda: sql(postgres, database_url, asked) == str(len(many)), 5)
        with locked(postgres, database_url, lock):
            wait_until(lambda: fake.counters()["refreshes"] - before >= len(many))
            until = time.monotonic() + 3
            while time.monotonic() < until:
                for tenant in TENANTS_SERVED:
                    began = time.monotonic()
                    assert refreshed(broker, tenant).status_code == 200
                    assert time.monotonic() - began < 1.5
        answers = [each.result() for each in renewals]
    assert [answer.status_code for answer in answers] == [200] * len(many)
    assert all(refreshed(broker, tenant).status_code == 200 for tenant in many)
    assert fake.counters()["refresh_token_reuses"] == 0
    lost = "SELECT count(*) FROM audit_events WHERE outcome = 'answer_lost'"
    assert sql(postgres, database_url, lost) == "0"


@pytest.mark.parametrize(
    "lock",
    [
        "SELECT FROM api_keys WHERE name = 'reader' FOR UPDATE",
        "SELECT FROM tenants WHERE id = 'held' FOR UPDATE",
        "SELECT FROM audit_chains ORDER BY chain LIMIT 5 FOR UPDATE",
        "SELECT FROM audit_heads FOR UPDATE",
        "SELECT FROM audit_events FOR UPDATE",
        "SELECT FROM connect_links FOR UPDATE",
        "SELECT FROM authorizations FOR UPDATE",
    ],
)
def test_a_lock_elsewhere_stops_neither_renewals_nor_their_notes(
    connected, postgres, database_url, lock
):
    broker = connected
    with locked(postgres, database_url, lock):
        for tenant in TENANTS_SERVED:
            began = time.monotonic()
            answer = refreshed(broker, tenant)
            assert answer.status_code == 200, answer.text
            assert time.monotonic() - began < 1.5


def test_the_background_refresher_goes_on_beside_a_locked_key(connected, postgres, database_url):
    """A key in use is noted once a minute by the loop that renews what is due."""
    broker = connected
    key = broker.make_key("locked-key", ["token"], ["*"])
    with (
        locked(postgres, database_url, "SELECT FROM api_keys WHERE name = 'locked-key' FOR UPDATE"),
        broker.client(key) as service,
    ):
        for tenant in TENANTS_SERVED:
            assert service.get(f"/token/{tenant}?min_ttl=1").status_code == 200
        time.sleep(1.1)
        due = "UPDATE grants SET next_refresh_at = now() WHERE tenant_id = 'served-1'"
        read = "SELECT version FROM grants WHERE tenant_id = 'served-1'"
        version = sql(postgres, database_url, read)
        sql(postgres, database_url, due)
        wait_until(lambda: sql(postgres, database_url, read) != version, 4, "the renewal")
    assert "housekeeping_postponed" not in broker.log_text()
