"""Which key encrypted each grant's tokens, as noted in its row.

``key_fingerprint`` is valid only if ``fingerprinted`` equals the last 8 bytes of ``access_token``.
An older release stores tokens without a note; their key is found only by trying all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from ignition_broker.storage.connection import Connection

CIPHERTEXT_END = "substring(access_token FROM length(access_token) - 7)"
_NOTED = f"fingerprinted = {CIPHERTEXT_END}"
_UNNOTED = f"access_token IS NOT NULL AND fingerprinted IS DISTINCT FROM {CIPHERTEXT_END}"

# Jumps from key to key along the index: one step for each key, however many rows there are.
DISTINCT = text(f"""
    WITH RECURSIVE keys AS (
        (SELECT key_fingerprint FROM grants WHERE {_NOTED} AND key_fingerprint IS NOT NULL
         ORDER BY key_fingerprint LIMIT 1)
        UNION ALL
        SELECT (SELECT grants.key_fingerprint FROM grants
                WHERE {_NOTED} AND grants.key_fingerprint > keys.key_fingerprint
                ORDER BY grants.key_fingerprint LIMIT 1)
        FROM keys WHERE keys.key_fingerprint IS NOT NULL
    )
    SELECT key_fingerprint FROM keys WHERE key_fingerprint IS NOT NULL
""")  # noqa: S608  # constants of this package alone

COUNT_NOTED = text(f"SELECT count(*) FROM grants WHERE {_NOTED} AND key_fingerprint = :fingerprint")  # noqa: S608

COUNT_UNNOTED = text(f"SELECT count(*) FROM grants WHERE {_UNNOTED}")  # noqa: S608

TENANTS = text(f"""
    SELECT tenant_id FROM grants WHERE {_NOTED} AND key_fingerprint = :fingerprint
    ORDER BY key_fingerprint LIMIT :limit
""")  # noqa: S608

UNNOTED = text(f"""
    SELECT tenant_id, access_token, refresh_token FROM grants
    WHERE {_UNNOTED} AND tenant_id > :after ORDER BY tenant_id LIMIT :limit
""")  # noqa: S608


@dataclass(frozen=True, slots=True)
class SealedRow:
    """A grant's ciphertexts. Both tokens are always stored together, and so under one key."""

    tenant: str
    access_token: bytes
    refresh_token: bytes


def ciphertext_end(ciphertext: bytes) -> bytes:
    """The last 8 bytes, by which a note identifies its ciphertext."""
    return ciphertext[-8:]


async def distinct(connection: Connection) -> list[str]:
    """The fingerprints of all keys that are noted."""
    return [row.key_fingerprint for row in await connection.execute(DISTINCT)]


async def count_noted(connection: Connection, fingerprint: str) -> int:
    """How many grants are noted to be encrypted by that key."""
    return int((await connection.execute(COUNT_NOTED, {"fingerprint": fingerprint})).scalar_one())


async def count_unnoted(connection: Connection) -> int:
    """How many grants have tokens and no valid note."""
    return int((await connection.execute(COUNT_UNNOTED)).scalar_one())


async def tenants(connection: Connection, fingerprint: str, *, limit: int) -> list[str]:
    """At most ``limit`` tenants whose tokens that key encrypted."""
    parameters = {"fingerprint": fingerprint, "limit": limit}
    return [row.tenant_id for row in await connection.execute(TENANTS, parameters)]


async def unnoted(connection: Connection, *, after: str, limit: int) -> Sequence[SealedRow]:
    """At most ``limit`` grants without a valid note, of tenants that follow ``after``."""
    rows = await connection.execute(UNNOTED, {"after": after, "limit": limit})
    return [SealedRow(row.tenant_id, row.access_token, row.refresh_token) for row in rows]
