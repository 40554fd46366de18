"""API keys, known by their hash."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import text

from ignition_broker.model import ApiKey, Caller, Scope
from ignition_broker.storage.connection import Connection, Row

# A revoked name may be given again: what it did before stays in the audit trail.
CREATE = text("""
    INSERT INTO api_keys (name, key_hash, scopes, tenants, expires_at, paths)
    VALUES (:name, :key_hash, :scopes, :tenants, :expires_at, :paths)
    ON CONFLICT (name) DO UPDATE
    SET key_hash = excluded.key_hash, scopes = excluded.scopes, tenants = excluded.tenants,
        expires_at = excluded.expires_at, paths = excluded.paths, created_at = now(),
        revoked_at = NULL, last_used_at = NULL
    WHERE api_keys.revoked_at IS NOT NULL
    RETURNING name, scopes, tenants, created_at, expires_at, revoked_at, last_used_at, paths
""")

FIND = text("""
    SELECT name, key_hash, scopes, tenants, expires_at, paths FROM api_keys
    WHERE key_hash = :key_hash AND revoked_at IS NULL
""")

LIST = text("""
    SELECT name, scopes, tenants, created_at, expires_at, revoked_at, last_used_at, paths
    FROM api_keys ORDER BY name
""")

REVOKE = text("""
    WITH revoked AS (
        UPDATE api_keys SET revoked_at = now() WHERE name = :name AND revoked_at IS NULL
        RETURNING name
    )
    SELECT name, pg_notify('api_keys', name) FROM revoked
""")

NOTE_USE = text("UPDATE api_keys SET last_used_at = now() WHERE name = ANY(:names)")


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
    return None if row is None else _api_key(row)


async def find(connection: Connection, key_hash: bytes) -> Caller | None:
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
        expires_at=row.expires_at,
        key_hash=row.key_hash,
        paths=None if row.paths is None else tuple(row.paths),
    )


async def list_all(connection: Connection) -> list[ApiKey]:
    return [_api_key(row) for row in await connection.execute(LIST)]


async def revoke(connection: Connection, name: str) -> bool:
    """Whether there was a live key of that name; every replica is told."""
    return (await connection.execute(REVOKE, {"name": name})).one_or_none() is not None


async def note_use(connection: Connection, names: Sequence[str]) -> None:
    await connection.execute(NOTE_USE, {"names": list(names)})


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
    )
