"""A key is rotated without locking its service out at any moment."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest
from tests.conftest import free_port, sha256, sql, wait_until


@pytest.fixture(scope="module")
def other(broker):
    """A second replica, which hears of rotations from Postgres alone."""
    port = free_port()
    replica = dataclasses.replace(
        broker, port=port, settings={**broker.settings, "BROKER_PORT": str(port)}, logs=[]
    ).start()
    yield replica
    replica.stop()


@pytest.fixture(scope="module", autouse=True)
def _listening(broker, other):
    for replica in (broker, other):
        with replica.client() as admin:
            wait_until(lambda admin=admin: "broker_listening 1.0" in admin.get("/metrics").text, 5)


def rotate(broker, name: str, **body) -> dict:
    with broker.client() as admin:
        answer = admin.post(f"/admin/api-keys/{name}/rotate", json=body or None)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


def status(replica, key: str) -> int:
    """404: the key is good, the tenant unknown."""
    with replica.client(key) as service:
        return service.get("/token/nobody").status_code


def test_both_keys_work_until_the_grace_ends_and_then_the_new_one_alone(broker, other):
    """On every replica, one that held the old key in memory included."""
    old = broker.make_key("both", ["token"], ["*"])
    assert (status(broker, old), status(other, old)) == (404, 404)
    began = time.monotonic()
    new = rotate(broker, "both", grace_seconds=3)["key"]
    assert new != old
    while time.monotonic() < began + 2.5:
        assert {status(r, k) for r in (broker, other) for k in (old, new)} == {404}
    wait_until(lambda: {status(r, old) for r in (broker, other)} == {401}, 1.5, "the old key's end")
    assert {status(r, new) for r in (broker, other)} == {404}


def test_a_rotation_without_grace_ends_the_old_key_within_a_second(broker, other):
    old = broker.make_key("now", ["token"], ["*"])
    assert (status(broker, old), status(other, old)) == (404, 404)
    new = rotate(broker, "now", grace_seconds=0)
    assert new["previous_works_until"] is None
    assert status(broker, old) == 401
    wait_until(lambda: status(other, old) == 401, 1)
    assert {status(r, new["key"]) for r in (broker, other)} == {404}


def test_a_rotation_that_was_sent_twice_locks_nobody_out(broker):
    """The first answer may have been lost, with the service still at the oldest key."""
    keys = [broker.make_key("twice", ["token"], ["*"])]
    keys += [rotate(broker, "twice")["key"] for _ in range(2)]
    assert [status(broker, key) for key in keys] == [404, 404, 404]
    last = rotate(broker, "twice", grace_seconds=0)["key"]
    assert [status(broker, key) for key in keys] == [401, 401, 401]
    assert status(broker, last) == 404


def test_the_new_key_has_the_name_scopes_tenants_and_paths_of_the_old(broker):
    broker.make_key("same", ["proxy"], ["acme"], paths=["GET /v1/*"])
    new = rotate(broker, "same")
    shown = {name: new[name] for name in ("name", "scopes", "tenants", "paths", "expires_at")}
    assert shown == {
        "name": "same",
        "scopes": ["proxy"],
        "tenants": ["acme"],
        "paths": ["GET /v1/*"],
        "expires_at": None,
    }
    with broker.client(new["key"]) as service:
        assert service.get("/token/acme").status_code == 403
        assert service.delete("/proxy/acme/v1/x").status_code == 403
    with broker.client() as admin:
        listed = admin.get("/admin/api-keys")
    assert new["key"] not in listed.text
    row = next(row for row in listed.json()["api_keys"] if row["name"] == "same")
    assert row["previous_works_until"] == new["previous_works_until"] is not None


def test_a_rotation_is_in_the_audit_trail_without_the_key(broker):
    broker.make_key("told", ["token"], ["*"])
    new = rotate(broker, "told", grace_seconds=60)
    with broker.client() as admin:
        answer = admin.get("/admin/audit")
    # Events of calls are written a little later than the calls: the newest may be another test's.
    event = next(event for event in answer.json()["events"] if event["action"] == "api_key_rotate")
    assert event["actor"] == "bootstrap-admin"
    assert event["detail"] == {"key": "told", "grace_seconds": 60, "expires_at": None}
    assert new["key"] not in answer.text


def test_a_revocation_ends_the_new_key_and_the_old(broker, other):
    old = broker.make_key("ended", ["token"], ["*"])
    new = rotate(broker, "ended")["key"]
    assert {status(other, old), status(other, new)} == {404}
    with broker.client() as admin:
        assert admin.delete("/admin/api-keys/ended").status_code == 204
        assert admin.post("/admin/api-keys/ended/rotate").status_code == 404
    wait_until(lambda: (status(other, old), status(other, new)) == (401, 401), 1)


def test_a_name_that_is_given_again_brings_no_old_key_back(broker, postgres, database_url):
    """Whether this release gives it, or the one before, which knows no predecessors."""
    old = broker.make_key("again", ["token"], ["*"])
    rotate(broker, "again")
    with broker.client() as admin:
        admin.delete("/admin/api-keys/again")
    again = broker.make_key("again", ["token"], ["*"])
    assert (status(broker, old), status(broker, again)) == (401, 404)
    rotate(broker, "again")
    as_before = (
        "UPDATE api_keys SET key_hash = '\\x{}', created_at = now() WHERE name = 'again'"
    ).format(sha256("ibk_written-by-the-release-before"))
    sql(postgres, database_url, as_before)
    with broker.client() as admin:
        # The broker's cache does not know what the test writes directly.
        admin.delete("/admin/api-keys/again")
    sql(postgres, database_url, "UPDATE api_keys SET revoked_at = NULL WHERE name = 'again'")
    assert status(broker, again) == 401
    assert status(broker, "ibk_written-by-the-release-before") == 404


def test_an_old_key_never_outlives_the_end_that_it_had(broker):
    ends = time.time() + 3
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends + 1))
    old = broker.make_key("short", ["token"], ["*"], expires_at=stamp)
    new = rotate(broker, "short", grace_seconds=3600, expires_at="2999-01-01T00:00:00Z")
    assert new["expires_at"].startswith("2999-")
    assert (status(broker, old), status(broker, new["key"])) == (404, 404)
    wait_until(lambda: status(broker, old) == 401, 6)
    assert status(broker, new["key"]) == 404


def test_an_expired_key_is_rotated_only_with_a_new_end(broker, postgres, database_url):
    old = broker.make_key("past", ["token"], ["*"])
    sql(
        postgres,
        database_url,
        "UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE name = 'past'",
    )
    with broker.client() as admin:
        refused = admin.post("/admin/api-keys/past/rotate", json={})
        assert refused.status_code == 422
        assert refused.json()["detail"].startswith("expires_at: this key has expired")
    new = rotate(broker, "past", expires_at="2999-01-01T00:00:00Z")
    assert (status(broker, old), status(broker, new["key"])) == (401, 404)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"grace_seconds": -1}, "grace_seconds"),
        ({"grace_seconds": 10**9}, "grace_seconds"),
        ({"grace_seconds": "long"}, "grace_seconds"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    ],
)
def test_errors_in_a_rotation_are_named(broker, body, field):
    with broker.client() as admin:
        answer = admin.post("/admin/api-keys/nobody/rotate", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(field)


def test_only_an_admin_rotates(broker):
    key = broker.make_key("plain", ["token", "proxy"], ["*"])
    with broker.client(key) as service:
        assert service.post("/admin/api-keys/plain/rotate").status_code == 403


def test_the_command_prints_the_new_key_alone(broker):
    old = broker.make_key("typed", ["token"], ["*"])
    rotated = broker.command("api-keys", "rotate", "typed", "--grace", "24h")
    assert rotated.returncode == 0, rotated.stderr
    new = rotated.stdout.strip()
    assert new.startswith("ibk_")
    assert len(rotated.stdout.split()) == 1
    assert (status(broker, old), status(broker, new)) == (404, 404)
    listed = json.loads(broker.command("api-keys", "list", "--json").stdout)
    assert next(row for row in listed if row["name"] == "typed")["previous_works_until"]
    ended = broker.command("api-keys", "rotate", "typed", "--grace", "0", "--expires", "90d")
    assert ended.returncode == 0, ended.stderr
    wait_until(lambda: (status(broker, old), status(broker, new)) == (401, 401), 1)
    assert broker.command("api-keys", "rotate", "nobody").returncode == 1
    assert broker.command("api-keys", "rotate", "typed", "--grace", "soon").returncode == 2
