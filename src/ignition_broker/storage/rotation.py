"""The encrypted columns, batch by batch, for a change of keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import text

from ignition_broker.storage.connection import Connection

COUNT = text("SELECT count(*) FROM grants WHERE access_token IS NOT NULL")

BATCH = text("""
    SELECT tenant_id, access_token, refresh_token FROM grants
    WHERE tenant_id > :after AND access_token IS NOT NULL ORDER BY tenant_id LIMIT :limit
""")

REPLACE = text("""
    UPDATE grants SET access_token = :access_token, refresh_token = :refresh_token
    WHERE tenant_id = :tenant AND access_token = :old_access_token
      AND refresh_token = :old_refresh_token
    RETURNING tenant_id
""")


@dataclass(frozen=True, slots=True)
class SealedRow:
    tenant: str
    columns: Mapping[str, bytes]


async def count(connection: Connection) -> int:
    return int((await connection.execute(COUNT)).scalar_one())


async def batch(connection: Connection, *, after: str, limit: int) -> Sequence[SealedRow]:
    rows = await connection.execute(BATCH, {"after": after, "limit": limit})
    return [
        SealedRow(
            row.tenant_id, {"access_token": row.access_token, "refresh_token": row.refresh_token}
        )
        for row in rows
    ]


async def replace(connection: Connection, row: SealedRow, fresh: Mapping[str, bytes]) -> int:
    """1, or 0 where the row holds other tokens by now."""
    old = {f"old_{column}": ciphertext for column, ciphertext in row.columns.items()}
    replaced = await connection.execute(REPLACE, {"tenant": row.tenant, **old, **fresh})
    return 0 if replaced.one_or_none() is None else 1
