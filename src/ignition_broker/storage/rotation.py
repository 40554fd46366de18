"""Reads and replaces the grants' ciphertexts in batches, for `keys rotate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from ignition_broker.storage.connection import Connection
from ignition_broker.storage.key_notes import CIPHERTEXT_END, SealedRow, ciphertext_end

COUNT = text("SELECT count(*) FROM grants WHERE access_token IS NOT NULL")

# Along the primary key, so that every batch costs the same, however many of its rows are done.
# Those come without their tokens.
BATCH = text(f"""
    SELECT tenant_id, is_done,
        CASE WHEN NOT is_done THEN access_token END AS access_token,
        CASE WHEN NOT is_done THEN refresh_token END AS refresh_token
    FROM (
        SELECT tenant_id, access_token, refresh_token,
            coalesce(key_fingerprint = :newest AND fingerprinted = {CIPHERTEXT_END}, false)
                AS is_done
        FROM grants WHERE tenant_id > :after AND access_token IS NOT NULL
        ORDER BY tenant_id LIMIT :limit
    ) AS batch ORDER BY tenant_id
""")  # noqa: S608  # constants of this package alone

# Skips rows that are locked or hold other tokens by now: a refresh neither waits for a batch, nor
# are its tokens overwritten by one.
REPLACE = text("""
    WITH fresh AS (
        SELECT * FROM unnest(
            CAST(:tenants AS text[]), CAST(:before AS bytea[]),
            CAST(:access_tokens AS bytea[]), CAST(:refresh_tokens AS bytea[]),
            CAST(:ends AS bytea[])
        ) AS fresh(tenant_id, before, access_token, refresh_token, ciphertext_end)
    ), free AS (
        SELECT grants.tenant_id FROM grants JOIN fresh USING (tenant_id)
        WHERE grants.access_token = fresh.before
        ORDER BY grants.tenant_id FOR UPDATE OF grants SKIP LOCKED
    )
    UPDATE grants SET access_token = fresh.access_token, refresh_token = fresh.refresh_token,
        key_fingerprint = :newest, fingerprinted = fresh.ciphertext_end,
        empty_refresh_token = CASE WHEN NOT (
                grants.empty_refresh_token IS DISTINCT FROM substring(
                    grants.refresh_token FROM length(grants.refresh_token) - 7))
            THEN substring(fresh.refresh_token FROM length(fresh.refresh_token) - 7)
        END
    FROM fresh JOIN free USING (tenant_id)
    WHERE grants.tenant_id = fresh.tenant_id AND grants.access_token = fresh.before
    RETURNING grants.tenant_id
""")


@dataclass(frozen=True, slots=True)
class Batch:
    """``seen``: how many rows were looked at. ``last``: the last tenant of them. ``waiting``: the
    rows that are not noted to be encrypted by the newest key."""

    seen: int
    last: str
    waiting: Sequence[SealedRow]


async def count(connection: Connection) -> int:
    """How many grants have tokens."""
    return int((await connection.execute(COUNT)).scalar_one())


async def batch(connection: Connection, *, newest: str, after: str, limit: int) -> Batch | None:
    """The next ``limit`` rows that follow the tenant ``after``; None if there are none."""
    parameters = {"newest": newest, "after": after, "limit": limit}
    rows = list(await connection.execute(BATCH, parameters))
    if not rows:
        return None
    waiting = [
        SealedRow(row.tenant_id, row.access_token, row.refresh_token)
        for row in rows
        if not row.is_done
    ]
    return Batch(len(rows), rows[-1].tenant_id, waiting)


async def replace(
    connection: Connection, pairs: Sequence[tuple[SealedRow, SealedRow]], *, newest: str
) -> int:
    """Replaces rows that have not changed since they were read; returns how many.

    ``pairs``: each row as it was read, and as it is to be. ``newest``: the fingerprint of the key
    that encrypted the latter.
    """
    parameters = {
        "newest": newest,
        "tenants": [before.tenant for before, _fresh in pairs],
        "before": [before.access_token for before, _fresh in pairs],
        "access_tokens": [fresh.access_token for _before, fresh in pairs],
        "refresh_tokens": [fresh.refresh_token for _before, fresh in pairs],
        "ends": [ciphertext_end(fresh.access_token) for _before, fresh in pairs],
    }
    return len(list(await connection.execute(REPLACE, parameters)))
