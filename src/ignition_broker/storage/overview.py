"""What the console's first page says of all tenants together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from ignition_broker.storage.connection import Connection

# Each is counted in a partial index of its own: some ten milliseconds for 100,000.
COUNT = text("""
    SELECT (SELECT count(*) FROM grants WHERE status = 'connected') AS connected,
        (SELECT count(*) FROM grants WHERE status = 'reauthorization_required') AS ended,
        (SELECT count(*) FROM grants WHERE status = 'disconnected') AS disconnected,
        (SELECT count(*) FROM tenants WHERE NOT has_grant) AS without_grant,
        (SELECT count(*) FROM held_grants
         WHERE account_id IS NOT NULL AND expires_at > now()) AS held
""")

# As the indexes grants_unrenewable and grants_lapsing have it.
ENDINGS = text("""
    (SELECT tenant_id, expires_at AS ends_at FROM grants
     WHERE status = 'connected' AND empty_refresh_token IS NOT NULL
       AND empty_refresh_token = substring(refresh_token FROM length(refresh_token) - 7)
       AND expires_at > now() AND expires_at < now() + interval '30 days'
     ORDER BY expires_at LIMIT :limit)
    UNION ALL
    (SELECT tenant_id, refresh_token_expires_at FROM grants
     WHERE status = 'connected'
       AND refresh_token_expires_at - refresh_token_first_end < interval '60 seconds'
       AND refresh_token_expires_at > now()
       AND refresh_token_expires_at < now() + interval '30 days'
     ORDER BY refresh_token_expires_at LIMIT :limit)
    ORDER BY ends_at LIMIT :limit
""")

CONDITIONS = text("SELECT subject, changed_at FROM conditions WHERE is_met ORDER BY changed_at")


@dataclass(frozen=True, slots=True)
class TenantCounts:
    """``ended``: those that an admin has to connect again. ``disconnected``: also those that were
    never connected. ``held``: whose reconnect was for another account, which waits to be
    confirmed."""

    connected: int
    ended: int
    disconnected: int
    held: int

    @property
    def every(self) -> int:
        return self.connected + self.ended + self.disconnected


@dataclass(frozen=True, slots=True)
class Ending:
    """A connected grant that renewing can't keep alive."""

    grant: str
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class MetCondition:
    """One that lasts, such as ``provider default`` or ``client default``."""

    subject: str
    since: datetime


async def count(connection: Connection) -> TenantCounts:
    """How many tenants there are, by how they are; one with two OAuth clients counts twice."""
    row = (await connection.execute(COUNT, {})).one()
    return TenantCounts(row.connected, row.ended, row.disconnected + row.without_grant, row.held)


async def endings(connection: Connection, *, limit: int) -> Sequence[Ending]:
    """The grants that end first, within 30 days."""
    rows = await connection.execute(ENDINGS, {"limit": limit})
    return [Ending(row.tenant_id, row.ends_at) for row in rows]


async def met(connection: Connection) -> Sequence[MetCondition]:
    """The conditions that last now."""
    return [
        MetCondition(row.subject, row.changed_at)
        for row in await connection.execute(CONDITIONS, {})
    ]
