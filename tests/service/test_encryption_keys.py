"""Encryption keys: which grants each one holds, and what happens if one is missing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from cryptography.fernet import Fernet
from tests.conftest import sql, wait_until
from tests.service.test_schema import migrate_to

from ignition_broker.cipher import Cipher, fingerprint_of
from ignition_broker.storage import key_notes

FIRST_LIFETIME = "now(), now() + interval '1 hour', now(), 1, now() + interval '1 hour'"


@pytest.fixture
def empty(idle_broker, postgres):
    """The broker on a database of its own, with its keys as they were at the end."""
    kept = dict(idle_broker.settings)
    name = f"keys_{Fernet.generate_key().hex()[:8]}"
    postgres.create_database(name, template="template_broker")
    idle_broker.settings["DATABASE_URL"] = postgres.url(name)
    yield idle_broker
    idle_broker.settings.clear()
    idle_broker.settings.update(kept)


@pytest.fixture
def ask(empty, postgres):
    return lambda statement: sql(postgres, empty.settings["DATABASE_URL"], statement)


def new_key() -> str:
    return Fernet.generate_key().decode()


def store(ask, key: str, tenants: list[str], *, is_noted: bool = True) -> None:
    """As a replica with that key stores; as one of the release before, where nothing is noted."""
    cipher = Cipher([key])
    for tenant in tenants:
        access = cipher.encrypt(tenant, "access_token", f"access-{tenant}")
        refresh = cipher.encrypt(tenant, "refresh_token", f"refresh-{tenant}")
        end = f"'\\x{key_notes.ciphertext_end(access).hex()}'"
        note = f"'{cipher.fingerprint}', {end}" if is_noted else "NULL, NULL"
        ask(f"INSERT INTO tenants VALUES ('{tenant}')")
        ask(
            "INSERT INTO grants (tenant_id, status, access_token, refresh_token, token_type, "
            "scope, issued_at, expires_at, connected_at, version, next_refresh_at, "
            f"key_fingerprint, fingerprinted) VALUES ('{tenant}', 'connected', "
            f"'\\x{access.hex()}', '\\x{refresh.hex()}', 'Bearer', '', {FIRST_LIFETIME}, {note})"
        )


def status(broker) -> tuple[dict[str | None, int], int]:
    ended = broker.command("keys", "status", "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    return {held["fingerprint"]: held["grants"] for held in found["keys"]}, found["untried"]


def test_status_says_how_many_grants_each_key_holds_and_shows_no_key(empty, ask):
    old, new, lost = new_key(), new_key(), new_key()
    store(ask, old, ["a", "b", "c"])
    store(ask, new, ["d"])
    store(ask, lost, ["e"])
    store(ask, old, ["f", "g"], is_noted=False)
    store(ask, lost, ["h"], is_noted=False)
    empty.settings["BROKER_ENCRYPTION_KEYS"] = f"{new},{old}"
    counts, untried = status(empty)
    assert counts == {
        fingerprint_of(new): 1,
        fingerprint_of(old): 5,
        fingerprint_of(lost): 1,
        None: 1,
    }
    assert untried == 0
    shown = empty.command("keys", "status").stdout
    assert all(fingerprint_of(key) in shown for key in (old, new, lost))
    assert not any(key[:8] in shown for key in (old, new, lost))


def test_a_store_of_the_release_before_is_not_taken_for_what_was_noted(empty, ask):
    old, new = new_key(), new_key()
    store(ask, new, ["a"])
    access = Cipher([old]).encrypt("a", "access_token", "later")
    refresh = Cipher([old]).encrypt("a", "refresh_token", "later")
    ask(
        f"UPDATE grants SET access_token = '\\x{access.hex()}', "
        f"refresh_token = '\\x{refresh.hex()}', version = version + 1"
    )
    empty.settings["BROKER_ENCRYPTION_KEYS"] = f"{new},{old}"
    assert status(empty) == ({fingerprint_of(new): 0, fingerprint_of(old): 1}, 0)


@pytest.mark.parametrize("is_noted", [True, False])
def test_serve_refuses_to_start_without_a_key_that_a_grant_needs(empty, ask, is_noted):
    lost, mine = new_key(), new_key()
    store(ask, mine, ["mine"])
    store(ask, lost, ["lost"], is_noted=is_noted)
    empty.settings["BROKER_ENCRYPTION_KEYS"] = mine
    ended = empty.command("serve")
    assert ended.returncode == 2
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("BROKER_ENCRYPTION_KEYS: lacks ")
    assert "tenant lost" in line
    assert (fingerprint_of(lost) in line) is is_noted
    assert lost not in line
    assert mine not in line


def test_a_replica_that_began_before_the_migration_is_not_ready_without_the_key(
    idle_broker, postgres
):
    """When it began nobody could tell."""
    postgres.create_database("keys_of_the_second_release")
    url = postgres.url("keys_of_the_second_release")
    migrate_to("0002", url)
    kept = dict(idle_broker.settings)
    idle_broker.settings["DATABASE_URL"] = url
    access, refresh = (Cipher([new_key()]).encrypt("a", name, "x") for name in ("a", "r"))
    sql(postgres, url, "INSERT INTO tenants VALUES ('a')")
    sql(
        postgres,
        url,
        "INSERT INTO grants (tenant_id, status, access_token, refresh_token, version) "
        f"VALUES ('a', 'connected', '\\x{access.hex()}', '\\x{refresh.hex()}', 1)",
    )
    serving = subprocess.Popen(
        [sys.executable, "-m", "ignition_broker", "serve"],
        env=idle_broker.environment,
        cwd=idle_broker.folder,
        stderr=subprocess.DEVNULL,
    )
    try:
        with idle_broker.client() as anyone:
            first = wait_until(lambda: anyone.get("/readyz"), 40)
            assert first.json()["detail"].startswith("the schema is 0002")
            assert idle_broker.command("migrate").returncode == 0
            detail = anyone.get("/readyz").json()["detail"]
            assert detail == "a stored grant needs a key that is missing; see: keys status"
            sql(postgres, url, "UPDATE grants SET access_token = NULL, refresh_token = NULL")
            assert anyone.get("/readyz").status_code == 200
    finally:
        idle_broker.settings.clear()
        idle_broker.settings.update(kept)
        serving.terminate()
        serving.wait(30)


def test_rotate_passes_over_what_it_cannot_read_and_says_so(empty, ask):
    old, new, lost = new_key(), new_key(), new_key()
    store(ask, old, ["a", "z"])
    store(ask, new, ["n"])
    store(ask, new, ["u"], is_noted=False)
    store(ask, lost, ["l"])
    empty.settings["BROKER_ENCRYPTION_KEYS"] = f"{new},{old}"
    ended = empty.command("keys", "rotate")
    assert ended.returncode == 1
    assert ended.stdout.startswith("3 grants re-encrypted")
    assert "can't be read with these keys: 1 (l)" in ended.stderr
    written = ask("SELECT actor, outcome, detail FROM audit_events WHERE action = 'keys_rotate'")
    actor, outcome, detail = written.split("|")
    assert (actor, outcome) == ("cli", "incomplete")
    assert json.loads(detail) == {
        "key_fingerprint": fingerprint_of(new),
        "rotated": 3,
        "unreadable": 1,
        "left": 0,
    }
    assert status(empty)[0] == {
        fingerprint_of(new): 4,
        fingerprint_of(old): 0,
        fingerprint_of(lost): 1,
    }
    again = empty.command("keys", "rotate")
    assert again.stdout.startswith("0 grants re-encrypted")
    empty.settings["BROKER_ENCRYPTION_KEYS"] = new
    assert empty.command("tenants", "disconnect", "l").returncode == 0
    assert empty.command("keys", "rotate").returncode == 0
    assert status(empty) == ({fingerprint_of(new): 4}, 0)


def test_rotate_leaves_a_moved_ciphertext_where_it_is_and_audits_it(empty, ask):
    key = new_key()
    store(ask, key, ["a", "b"], is_noted=False)
    ask(
        "UPDATE grants SET refresh_token = other.refresh_token FROM grants other "
        "WHERE grants.tenant_id = 'a' AND other.tenant_id = 'b'"
    )
    empty.settings["BROKER_ENCRYPTION_KEYS"] = key
    ended = empty.command("keys", "rotate")
    assert ended.returncode == 1
    assert ended.stdout.startswith("1 grants re-encrypted")
    moved = "SELECT tenant_id, action, outcome, detail FROM audit_events WHERE action = 'decrypt'"
    assert ask(moved) == 'a|decrypt|misplaced|{"column": "refresh_token"}'


def test_a_moved_ciphertext_is_an_error_and_one_audit_event(broker, postgres, database_url):
    broker.connect("here")
    broker.connect("there")
    with broker.client() as admin:
        sql(
            postgres,
            database_url,
            "UPDATE grants SET version = grants.version + 1, access_token = other.access_token "
            "FROM grants other WHERE grants.tenant_id = 'here' AND other.tenant_id = 'there'",
        )
        sql(
            postgres,
            database_url,
            "SELECT pg_notify('grants', concat_ws(' ', tenant_id, version, status)) FROM grants",
        )
        answer = wait_until(
            lambda: (got := admin.get("/token/here")).status_code != 200 and got, what="refused"
        )
        assert answer.status_code == 500
        assert answer.json()["type"] == "urn:ignition-broker:internal-error"
        assert admin.get("/token/here").status_code == 500
        events = admin.get("/admin/audit?tenant=here").json()["events"]
        moves = [event for event in events if event["outcome"] == "misplaced"]
        assert [(event["action"], event["detail"]) for event in moves] == [
            ("decrypt", {"column": "access_token"})
        ]
        assert admin.get("/token/there").status_code == 200


def test_a_grant_that_no_key_opens_is_set_aside_for_an_hour_and_holds_up_nobody(
    broker, postgres, database_url
):
    for tenant in ("torn", "whole"):
        broker.connect(tenant)

    def ask(statement: str) -> str:
        return sql(postgres, database_url, statement)

    version = "SELECT version FROM grants WHERE tenant_id = 'whole'"
    before = ask(version)
    ask(
        "UPDATE grants SET refresh_token = 'torn' WHERE tenant_id = 'torn';"
        "UPDATE grants SET next_refresh_at = now() - interval '1 second' "
        "WHERE tenant_id IN ('torn', 'whole')"
    )
    aside = (
        "SELECT count(*) FROM grants WHERE tenant_id = 'torn' AND lease_owner IS NULL "
        "AND next_refresh_at > now() + interval '59 minutes' AND refresh_started_at IS NULL"
    )
    wait_until(lambda: ask(aside) == "1", what="the torn grant is set aside")
    wait_until(lambda: ask(version) != before, what="the whole one is renewed")
    assert "grant_unreadable" in broker.log_text()


def test_what_the_start_asks_takes_a_step_a_key_and_not_one_a_row(postgres, empty, ask):
    """With the rows that nobody has noted yet counted out by an index of their own."""
    ask("INSERT INTO tenants SELECT 't' || n FROM generate_series(1, 20000) n")
    ask(
        "INSERT INTO grants (tenant_id, status, version, access_token, refresh_token, "
        "key_fingerprint, fingerprinted) SELECT id, 'connected', 1, '\\x0011223344556677', '\\x00',"
        " 'k' || (hashtext(id) % 3), '\\x0011223344556677' FROM tenants"
    )
    ask("VACUUM ANALYZE grants")
    assert sorted(ask(key_notes.DISTINCT.text).split()) == ["k-1", "k-2", "k0", "k1", "k2"]
    for statement in (key_notes.DISTINCT, key_notes.UNNOTED):
        asked = statement.text.replace(":after", "''").replace(":limit", "500")
        plan = ask(f"EXPLAIN (ANALYZE, BUFFERS OFF) {asked}")
        assert "Seq Scan" not in plan, plan
        assert "grants_key_" in plan, plan


def test_rotate_re_encrypts_what_is_still_to_be_revoked(empty, ask):
    old, lost = empty.settings["BROKER_ENCRYPTION_KEYS"], new_key()
    for number, key in enumerate([old, lost, old]):
        sealed = Cipher([key]).encrypt(f"gone{number}", "revocation", f"token-{number}")
        ask(
            "INSERT INTO pending_revocations (tenant_id, token, token_kind, actor, next_try_at) "
            f"VALUES ('gone{number}', '\\x{sealed.hex()}', 'refresh_token', 'cli', "
            "now() + interval '1 hour')"
        )
    fresh = new_key()
    empty.settings["BROKER_ENCRYPTION_KEYS"] = f"{fresh},{old}"
    ended = empty.command("keys", "rotate")
    assert ended.returncode == 0, ended.stderr
    stored = ask("SELECT encode(token, 'hex') FROM pending_revocations ORDER BY id").split()
    for number, key in enumerate([fresh, lost, fresh]):
        opened = Cipher([key]).decrypt(f"gone{number}", "revocation", bytes.fromhex(stored[number]))
        assert opened == f"token-{number}"
