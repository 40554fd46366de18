"""API keys, stored as hashes, and the keys that a rotation replaced and that still work.

Over 250 lines: half of them are statements and rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from ignition_broker.model import ApiKey, AuditEvent, Caller, Scope
from ignition_broker.storage.audit import audit_parameters
from ignition_broker.storage.change_notices import NOTIFY_KEY_CHANGED, NOTIFY_KEY_REVOKED
from ignition_broker.storage.connection import Connection, Row

_SHOWN = (
    "name, scopes, tenants, created_at, expires_at, revoked_at, last_used_at, paths, "
    "allowance_weight, allowance_reserve, created_by"
)

# The name of a revoked key can be used again; what the old key did is in the audit trail.
CREATE = text(f"""
    INSERT INTO api_keys (name, key_hash, scopes, tenants, expires_at, paths, allowance_weight,
        allowance_reserve, created_by)
    VALUES (:name, :key_hash, :scopes, :tenants, :expires_at, :paths, :weight, :reserve,
        :created_by)
    ON CONFLICT (name) DO UPDATE
    SET key_hash = excluded.key_hash, scopes = excluded.scopes, tenants = excluded.tenants,
        expires_at = excluded.expires_at, paths = excluded.paths,
        allowance_weight = excluded.allowance_weight,
        allowance_reserve = excluded.allowance_reserve, created_at = now(),
        created_by = excluded.created_by, revoked_at = NULL, last_used_at = NULL
    WHERE api_keys.revoked_at IS NOT NULL
    RETURNING {_SHOWN}, CAST(NULL AS timestamptz) AS previous_works_until
""")  # noqa: S608  # constants of this package alone

# When the release before uses a revoked name again, it leaves the rows of the replaced keys. They
# must not work again: they were replaced before the current key was created.
FIND = text("""
    WITH found AS (
        SELECT name, key_hash, expires_at FROM api_keys WHERE key_hash = :key_hash
        UNION ALL
        SELECT k.name, p.key_hash, LEAST(k.expires_at, p.expires_at)
        FROM api_key_predecessors p JOIN api_keys k ON k.name = p.name
        WHERE p.key_hash = :key_hash AND p.replaced_at > k.created_at
    )
    SELECT k.name, found.key_hash, k.scopes, k.tenants, k.paths, k.allowance_weight,
        k.allowance_reserve,
        extract(epoch FROM found.expires_at - clock_timestamp())::float8 AS seconds_left
    FROM found JOIN api_keys k ON k.name = found.name
    WHERE k.revoked_at IS NULL
""")

LIST = text(f"""
    SELECT {_SHOWN},
        (SELECT max(LEAST(p.expires_at, k.expires_at)) FROM api_key_predecessors p
         WHERE p.name = k.name AND p.replaced_at > k.created_at AND k.revoked_at IS NULL
           AND LEAST(p.expires_at, k.expires_at) > now()) AS previous_works_until
    FROM api_keys k ORDER BY name
""")  # noqa: S608

REVOKE = text(f"""
    WITH revoked AS (
        UPDATE api_keys SET revoked_at = now() WHERE name = :name AND revoked_at IS NULL
        RETURNING name, created_at
    )
    SELECT name, {NOTIFY_KEY_CHANGED}, {NOTIFY_KEY_REVOKED} FROM revoked
""")  # noqa: S608

# A name can be used again, so the revoked key is identified by when it was created.
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
    SELECT {_SHOWN},
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

# Locked keys are skipped and returned, for the caller to note them next time.
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
    created_by: str,
    allowance_weight: int = 1,
    allowance_reserve: int = 0,
) -> ApiKey | None:
    """Stores a new key; returns None if a key of that name exists that is not revoked.

    ``tenants``: patterns. ``paths``: rules for proxied calls; None: any call. ``allowance_weight``
    and ``allowance_reserve``: as in `Caller`. ``created_by``: the actor who makes it.
    """
    parameters = {
        "name": name,
        "key_hash": key_hash,
        "scopes": list(scopes),
        "tenants": list(tenants),
        "expires_at": expires_at,
        "paths": None if paths is None else list(paths),
        "weight": allowance_weight,
        "reserve": allowance_reserve,
        "created_by": created_by,
    }
    row = (await connection.execute(CREATE, parameters)).one_or_none()
    if row is None:
        return None
    await connection.execute(FORGET_REPLACED, {"name": name})
    return _api_key(row)


async def find(connection: Connection, key_hash: bytes, asked_at: float) -> Caller | None:
    """The caller with that key, current or replaced, even if it has expired; None if there is none.

    ``asked_at``: now on the monotonic clock, from which its remaining life is counted.
    """
    row = (await connection.execute(FIND, {"key_hash": key_hash})).one_or_none()
    if row is None:
        return None
    scopes = frozenset(Scope(scope) for scope in row.scopes)
    if row.paths is not None:
        # The release before knows no paths, and keeps them when it uses a revoked name again.
        scopes &= {Scope.PROXY}
    return Caller(
        name=row.name,
        scopes=scopes,
        tenants=tuple(row.tenants),
        dies_at=None if row.seconds_left is None else asked_at + row.seconds_left,
        key_hash=row.key_hash,
        paths=None if row.paths is None else tuple(row.paths),
        allowance_weight=row.allowance_weight,
        allowance_reserve=row.allowance_reserve,
    )


async def list_all(connection: Connection) -> list[ApiKey]:
    """All keys by name, including revoked and expired ones."""
    return [_api_key(row) for row in await connection.execute(LIST)]


async def revoke(connection: Connection, name: str) -> bool:
    """Revokes the key of that name and notifies every replica; False if there is none."""
    return (await connection.execute(REVOKE, {"name": name})).one_or_none() is not None


async def revoke_again(
    connection: Connection, name: str, event: AuditEvent, *, created_at: int
) -> bool:
    """Repeats a revocation that the database lost; returns False if nothing was to be done.

    ``created_at``: when the revoked key was created, in microseconds since 1970.
    """
    given = {"name": name, "created_at": created_at, **audit_parameters(event)}
    return (await connection.execute(REVOKE_AGAIN, given)).one_or_none() is not None


async def lock(connection: Connection, name: str) -> LockedKey | None:
    """Locks the unrevoked key of that name until the transaction ends; None if there is none."""
    row = (await connection.execute(LOCK, {"name": name})).one_or_none()
    return None if row is None else LockedKey(row.key_hash, row.is_expired)


async def replace(
    connection: Connection, name: str, *, key_hash: bytes, expires_at: datetime | None
) -> ApiKey:
    """Replaces a locked key's hash, and its expiry unless None; notifies every replica."""
    given = {"name": name, "key_hash": key_hash, "expires_at": expires_at}
    return _api_key((await connection.execute(REPLACE, given)).one())


async def keep_replaced(connection: Connection, name: str, *, grace_seconds: float) -> None:
    """Lets the current key, which is about to be replaced, and those replaced before it work for
    ``grace_seconds`` from now, but no longer than they would have.

    So a rotation without a grace ends all; one that is repeated ends none too early.
    """
    parameters = {"name": name, "grace": grace_seconds}
    await connection.execute(SHORTEN_REPLACED, parameters)
    await connection.execute(ADD_REPLACED, parameters)
    await connection.execute(CLEAR_REPLACED, {"name": name})


async def note_use(connection: Connection, names: Sequence[str]) -> list[str]:
    """Notes that these keys were used; returns those that were locked, to be noted later."""
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
        allowance_weight=row.allowance_weight,
        allowance_reserve=row.allowance_reserve,
        created_by=row.created_by,
    )
