"""Tenants, as an admin sees them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text

from ignition_broker.model import GrantStatus, TenantSummary
from ignition_broker.storage.connection import Connection, Row
from ignition_broker.storage.renewability import HAS_KNOWN_END, IS_RENEWABLE

ENSURE = text("INSERT INTO tenants (id) VALUES (:tenant) ON CONFLICT DO NOTHING")

LOCK = text("SELECT generation FROM tenants WHERE id = :tenant FOR NO KEY UPDATE")

# Links and sign-ins of an older generation no longer work.
END_BEGUN = text("""
    UPDATE tenants SET generation = generation + 1 WHERE id = :tenant RETURNING generation
""")

_SUMMARY = f"""
    SELECT tenants.id, coalesce(grants.status, 'disconnected') AS status, grants.scope,
        CASE WHEN {HAS_KNOWN_END} THEN grants.expires_at END AS expires_at,
        grants.connected_at, grants.refreshed_at, grants.last_error,
        coalesce(grants.status = 'connected' AND {IS_RENEWABLE}, false) AS renewable,
        grants.refresh_token_expires_at
    FROM tenants LEFT JOIN grants ON grants.tenant_id = tenants.id
"""  # noqa: S608  # constants of this package alone

READ = text(f"{_SUMMARY} WHERE tenants.id = :tenant")

LIST = text(f"""
    {_SUMMARY}
    WHERE tenants.id > :after
      AND (CAST(:status AS text) IS NULL OR coalesce(grants.status, 'disconnected') = :status)
    ORDER BY tenants.id LIMIT :limit
""")


async def ensure(connection: Connection, tenant: str) -> None:
    """Creates the tenant if it does not exist."""
    await connection.execute(ENSURE, {"tenant": tenant})


async def lock(connection: Connection, tenant: str) -> None:
    """Keeps other connects and disconnects of this tenant waiting until the transaction ends."""
    await connection.execute(LOCK, {"tenant": tenant})


async def end_begun(connection: Connection, tenant: str) -> int | None:
    """Ends the tenant's links and unfinished sign-ins. Returns the new generation, or None for an
    unknown tenant."""
    generation: int | None = await connection.scalar(END_BEGUN, {"tenant": tenant})
    return generation


async def read(connection: Connection, tenant: str) -> TenantSummary | None:
    """The tenant, or None if it is unknown."""
    row = (await connection.execute(READ, {"tenant": tenant})).one_or_none()
    return None if row is None else _summary(row)


async def list_after(
    connection: Connection, *, after: str, status: GrantStatus | None, limit: int
) -> Sequence[TenantSummary]:
    """At most ``limit`` tenants in the order of their ids, from the one that follows ``after``.

    ``status`` None: any.
    """
    parameters = {"after": after, "status": status and status.value, "limit": limit}
    return [_summary(row) for row in await connection.execute(LIST, parameters)]


def _summary(row: Row) -> TenantSummary:
    return TenantSummary(
        tenant=row.id,
        status=GrantStatus(row.status),
        scope=row.scope,
        expires_at=row.expires_at,
        connected_at=row.connected_at,
        refreshed_at=row.refreshed_at,
        last_error=row.last_error,
        renewable=row.renewable,
        refresh_token_expires_at=row.refresh_token_expires_at,
    )
