"""API keys, known by their hash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from ignition_broker.model import ApiKey, AuditEvent, Caller, Scope
from ignition_broker.storage.audit import audit_parameters
from ignition_broker.storage.connection import Connection, Row
from ignition_broker.storage.notifications import NOTIFY_KEY_CHANGED, NOTIFY_KEY_REVOKED

# A revoked name may be given again: what it did before stays in the audit trail.
CREATE = text("""
    INSERT INTO api_keys (name, key_hash, scopes, tenants, expires_at, paths)
    VALUES (:name, :key_hash, :scopes, :tenants, :expires_at, :paths)
    ON CONFLICT (name) DO UPDATE
    SET key_hash = excluded.key_hash, scopes = excluded.scopes, tenants = excluded.tenants,
        expires_at = excluded.expires_at, paths = excluded.paths, created_at = now(),
        revoked_at = NULL, last_used_at = NULL
    WHERE api_keys.revoked_at IS NOT NULL
    RETURNING name, scopes, tenants, created_at, expires_at, revoked_at, last_used_at, paths,
        CAST(NULL AS timestamptz) AS previous_works_until
""")

# The release before gives a revoked name again and leaves its predecessors, which must not come
# back to life: they were replaced before the key of today was made.
FIND = text("""
    WITH found AS (
        SELECT name, key_hash, expires_at FROM api_keys WHERE key_hash = :key_hash
        UNION ALL
        SELECT k.name, p.key_hash, LEAST(k.expires_at, p.expires_at)
        FROM api_key_predecessors p JOIN api_keys k ON k.name = p.name
        WHERE p.key_hash = :key_hash AND p.replaced_at > k.created_at
    )
    SELECT k.name, found.key_hash, k.scopes, k.tenants, k.paths,
        extract(epoch FROM found.expires_at - clock_timestamp())::float8 AS seconds_left
    FROM found JOIN api_keys k ON k.name = found.name
    WHERE k.revoked_at IS NULL
""")

LIST = text("""
    SELECT name, scopes, tenants, created_at, expires_at, revoked_at, last_used_at, paths,
        (SELECT max(LEAST(p.expires_at, k.expires_at)) FROM api_key_predecessors p
         WHERE p.name = k.name AND p.replaced_at > k.created_at AND k.revoked_at IS NULL
           AND LEAST(p.expires_at, k.expires_at) > now()) AS previous_works_until
    FROM api_keys k ORDER BY name
""")

REVOKE = text(f"""
    WITH revoked AS (
        UPDATE api_keys SET revoked_at = now() WHERE name = :name AND revoked_at IS NULL
        RETURNING name, created_at
    )
    SELECT name, {NOTIFY_KEY_CHANGED}, {NOTIFY_KEY_REVOKED} FROM revoked
""")  # noqa: S608  # constants of this package alone

# A key's name may be given again, so it is known by when it was made. Those of its name that are
# older were revoked before.
REVOKE_AGAIN = text(f"""
    WITH forgotten AS (
        SELECT name FROM api_keys
        WHERE name = :name AND revoked_at IS NULL
          AND CAST(extract(epoch FROM created_at) * 1000000 AS bigint) <= :created_at
        FOR UPDATE SKIP LOCKED
    ), revoked AS (
        UPDATE api_keys SET revoked_at = now() FROM forgotten
        WHERE api_keys.name = forgotten.name RETURNING api_keys.name
    ), audited AS (
        INSERT INTO audit_events (tenant_id, actor, action, outcome, request_id, detail)
        SELECT :tenant, :actor, :action, :outcome, :request_id, CAST(:detail AS jsonb) FROM revoked
    )
    SELECT name, {NOTIFY_KEY_CHANGED} FROM revoked
""")  # noqa: S608

LOCK = text("""
    SELECT key_hash, COALESCE(expires_at <= clock_timestamp(), false) AS is_expired
    FROM api_keys WHERE name = :name AND revoked_at IS NULL FOR UPDATE
""")

REPLACE = text(f"""
    WITH replaced AS (
        UPDATE api_keys
        SET key_hash = :key_hash,
            expires_at = COALESCE(CAST(:expires_at AS timestamptz), expires_at)
        WHERE name = :name
        RETURNING *
    )
    SELECT r.name, r.scopes, r.tenants, r.created_at, r.expires_at, r.revoked_at, r.last_used_at,
        r.paths,
        (SELECT max(LEAST(p.expires_at, r.expires_at)) FROM api_key_predecessors p
         WHERE p.name = r.name) AS previous_works_until,
        {NOTIFY_KEY_CHANGED}
    FROM replaced r
""")  # noqa: S608

SHORTEN_REPLACED = text("""
    UPDATE api_key_predecessors
    SET expires_at = LEAST(expires_at, clock_timestamp() + make_interval(secs => :grace))
    WHERE name = :name
""")

ADD_REPLACED = text("""
    INSERT INTO api_key_predecessors (key_hash, name, replaced_at, expires_at)
    SELECT key_hash, name, clock_timestamp(),
        LEAST(expires_at, clock_timestamp() + make_interval(secs => :grace))
    FROM api_keys WHERE name = :name
""")

CLEAR_REPLACED = text("""
    DELETE FROM api_key_predecessors WHERE name = :name AND expires_at <= clock_timestamp()
""")

FORGET_REPLACED = text("DELETE FROM api_key_predecessors WHERE name = :name")

# Keys that somebody else has locked are passed over and named, to be noted next time.
NOTE_USE = text("""
    WITH free AS (
        SELECT name FROM api_keys WHERE name = ANY(:names) FOR NO KEY UPDATE SKIP LOCKED
    ), noted AS (
        UPDATE api_keys SET last_used_at = now() FROM free WHERE api_keys.name = free.name
    )
    SELECT name FROM api_keys
    WHERE name = ANY(:names) AND name NOT IN (SELECT name FROM free)
""")


@dataclass(frozen=True, slots=True)
class LockedKey:
    key_hash: bytes
    is_expired: bool


async def create(
    connection: Connection,
    *,
    name: str,
    key_hash: bytes,
    scopes: Sequence[str],
    tenants: Sequence[str],
    expires_at: datetime | None,
    paths: Sequence[str] | None,
) -> ApiKey | None:
    """The key as an admin sees it; None where a live one has that name."""
    parameters = {
        "name": name,
        "key_hash": key_hash,
        "scopes": list(scopes),
        "tenants": list(tenants),
        "expires_at": expires_at,
        "paths": None if paths is None else list(paths),
    }
    row = (await connection.execute(CREATE, parameters)).one_or_none()
    if row is None:
        return None
    await connection.execute(FORGET_REPLACED, {"name": name})
    return _api_key(row)


async def find(connection: Connection, key_hash: bytes, asked_at: float) -> Caller | None:
    """``asked_at``, on the monotonic clock, from which what the key has left to live counts."""
    row = (await connection.execute(FIND, {"key_hash": key_hash})).one_or_none()
    if row is None:
        return None
    scopes = frozenset(Scope(scope) for scope in row.scopes)
    if row.paths is not None:
        # The release before knows no paths, and leaves them where it gives a revoked name again.
        scopes &= {Scope.PROXY}
    return Caller(
        name=row.name,
        scopes=scopes,
        tenants=tuple(row.tenants),
        dies_at=None if row.seconds_left is None else asked_at + row.seconds_left,
        key_hash=row.key_hash,
        paths=None if row.paths is None else tuple(row.paths),
    )


async def list_all(connection: Connection) -> list[ApiKey]:
    return [_api_key(row) for row in await connection.execute(LIST)]


async def revoke(connection: Connection, name: str) -> bool:
    """Whether there was a live key of that name; every replica is told."""
    return (await connection.execute(REVOKE, {"name": name})).one_or_none() is not None


async def revoke_again(
    connection: Connection, name: str, event: AuditEvent, *, created_at: int
) -> bool:
    """Of a revocation that the database has forgotten; whether it had. ``created_at``: when the
    revoked key was made, in microseconds since 1970."""
    given = {"name": name, "created_at": created_at, **audit_parameters(event)}
    return (await connection.execute(REVOKE_AGAIN, given)).one_or_none() is not None


async def lock(connection: Connection, name: str) -> LockedKey | None:
    """The live key of that name, held still until the transaction ends."""
    row = (await connection.execute(LOCK, {"name": name})).one_or_none()
    return None if row is None else LockedKey(row.key_hash, row.is_expired)


async def replace(
    connection: Connection, name: str, *, key_hash: bytes, expires_at: datetime | None
) -> ApiKey:
    """Of a key that is locked; ``expires_at`` None: as it was. Every replica is told."""
    parameters = {"name": name, "key_hash": key_hash, "expires_at": expires_at}
    return _api_key((await connection.execute(REPLACE, parameters)).one())


async def keep_replaced(connection: Connection, name: str, *, grace_seconds: float) -> None:
    """Lets the current key of this name, which is about to be replaced, work for a while yet.

    It and all keys replaced before it work for at most ``grace_seconds`` from now, and no longer
    than they would have. So a rotation without a grace ends them all, and one that is repeated
    because its answer was lost ends none of them too early.
    """
    parameters = {"name": name, "grace": grace_seconds}
    await connection.execute(SHORTEN_REPLACED, parameters)
    await connection.execute(ADD_REPLACED, parameters)
    await connection.execute(CLEAR_REPLACED, {"name": name})


async def note_use(connection: Connection, names: Sequence[str]) -> list[str]:
    """Returns the keys whose rows somebody else has locked, of which nothing was noted."""
    return [row.name for row in await connection.execute(NOTE_USE, {"names": list(names)})]


def _api_key(row: Row) -> ApiKey:
    return ApiKey(
        name=row.name,
        scopes=tuple(row.scopes),
        tenants=tuple(row.tenants),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        paths=None if row.paths is None else tuple(row.paths),
        previous_works_until=row.previous_works_until,
    )
