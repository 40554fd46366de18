"""Tenants, and what an admin sees of them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text

from ignition_broker.model import GrantStatus, TenantSummary
from ignition_broker.storage.connection import Connection, Row

ENSURE = text("INSERT INTO tenants (id) VALUES (:tenant) ON CONFLICT DO NOTHING")

_SUMMARY = """
    SELECT tenants.id, coalesce(grants.status, 'disconnected') AS status, grants.scope,
        grants.expires_at, grants.connected_at, grants.refreshed_at, grants.last_error
    FROM tenants LEFT JOIN grants ON grants.tenant_id = tenants.id
"""

READ = text(f"{_SUMMARY} WHERE tenants.id = :tenant")

LIST = text(f"""
    {_SUMMARY}
    WHERE tenants.id > :after
      AND (CAST(:status AS text) IS NULL OR coalesce(grants.status, 'disconnected') = :status)
    ORDER BY tenants.id LIMIT :limit
""")


async def ensure(connection: Connection, tenant: str) -> None:
    """Makes the tenant if it is new."""
    await connection.execute(ENSURE, {"tenant": tenant})


async def read(connection: Connection, tenant: str) -> TenantSummary | None:
    row = (await connection.execute(READ, {"tenant": tenant})).one_or_none()
    return None if row is None else _summary(row)


async def list_after(
    connection: Connection, *, after: str, status: GrantStatus | None, limit: int
) -> Sequence[TenantSummary]:
    """At most ``limit`` tenants in the order of their ids, those behind ``after``."""
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
    )
