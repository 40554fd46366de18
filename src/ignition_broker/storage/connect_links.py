"""One-time links, known by their hash."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from ignition_broker.storage.connection import Connection

CREATE = text("""
    INSERT INTO connect_links (token_hash, tenant_id, expires_at, created_by)
    VALUES (:token_hash, :tenant, now() + make_interval(secs => :lifetime), :created_by)
    RETURNING expires_at
""")

READ = text("""
    SELECT tenant_id, created_by, used_at IS NULL AND expires_at > now() AS is_live
    FROM connect_links WHERE token_hash = :token_hash
""")

SPEND = text("""
    UPDATE connect_links SET used_at = now()
    WHERE token_hash = :token_hash AND used_at IS NULL AND expires_at > now()
    RETURNING tenant_id, created_by, true AS is_live
""")

REVOKE = text("""
    UPDATE connect_links SET used_at = now() WHERE tenant_id = :tenant AND used_at IS NULL
""")

# Kept for a while after their end, so that a late click reads "spent" and not "forged".
CLEAR = text("""
    DELETE FROM connect_links WHERE token_hash IN (
        SELECT token_hash FROM connect_links WHERE expires_at < now() - interval '30 days'
        FOR UPDATE SKIP LOCKED
    )
""")


@dataclass(frozen=True, slots=True)
class ConnectLink:
    tenant: str
    created_by: str
    is_live: bool


async def create(
    connection: Connection,
    *,
    token_hash: bytes,
    tenant: str,
    lifetime_seconds: float,
    created_by: str,
) -> datetime:
    """Returns when it expires."""
    parameters = {
        "token_hash": token_hash,
        "tenant": tenant,
        "lifetime": lifetime_seconds,
        "created_by": created_by,
    }
    expires_at: datetime = (await connection.execute(CREATE, parameters)).scalar_one()
    return expires_at


async def read(connection: Connection, token_hash: bytes) -> ConnectLink | None:
    row = (await connection.execute(READ, {"token_hash": token_hash})).one_or_none()
    return None if row is None else ConnectLink(row.tenant_id, row.created_by, row.is_live)


async def spend(connection: Connection, token_hash: bytes) -> ConnectLink | None:
    """The link, if it was still live; of two clicks one gets it."""
    row = (await connection.execute(SPEND, {"token_hash": token_hash})).one_or_none()
    return None if row is None else ConnectLink(row.tenant_id, row.created_by, row.is_live)


async def revoke_all(connection: Connection, tenant: str) -> None:
    await connection.execute(REVOKE, {"tenant": tenant})


async def clear(connection: Connection) -> None:
    await connection.execute(CLEAR)
