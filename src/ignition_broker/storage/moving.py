"""What an import has to know of the grants that are there already, and what an export takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import text

from ignition_broker.model import GrantStatus
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.renewability import HAS_KNOWN_END

HELD = text("""
    SELECT tenant_id, status, refresh_token, access_token FROM grants
    WHERE tenant_id = ANY(CAST(:grants AS text[])) AND status <> 'disconnected'
""")


CONNECTED = text(f"""
    SELECT tenants.id, tenants.name, tenants.labels, grants.refresh_token, grants.access_token,
        grants.scope, CASE WHEN {HAS_KNOWN_END} THEN grants.expires_at END AS expires_at
    FROM tenants JOIN grants ON grants.tenant_id = tenants.id
    WHERE tenants.id > :after AND grants.status = 'connected'
    ORDER BY tenants.id LIMIT :limit
""")  # noqa: S608  # constants of this package alone


@dataclass(frozen=True, slots=True)
class MovingGrant:
    """A connected grant, whose tokens are encrypted. ``expires_at``: of the access token; None: not
    known."""

    grant: str
    refresh_token: bytes = field(repr=False)
    access_token: bytes = field(repr=False)
    expires_at: datetime | None
    scope: str
    name: str | None
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HeldTokens:
    """A grant that is not disconnected; its tokens are encrypted."""

    status: GrantStatus
    refresh_token: bytes | None = field(repr=False)
    access_token: bytes | None = field(repr=False)


async def held(connection: Connection, grants: Sequence[str]) -> dict[str, HeldTokens]:
    """Those of ``grants`` that are connected, or were until Ignition refused them."""
    return {
        row.tenant_id: HeldTokens(GrantStatus(row.status), row.refresh_token, row.access_token)
        for row in await connection.execute(HELD, {"grants": list(grants)})
    }


async def connected_after(
    connection: Connection, after: str, *, limit: int
) -> Sequence[MovingGrant]:
    """At most ``limit`` connected grants in the order of their ids, behind ``after``."""
    rows = await connection.execute(CONNECTED, {"after": after, "limit": limit})
    return [
        MovingGrant(
            row.id,
            row.refresh_token,
            row.access_token,
            row.expires_at,
            row.scope or "",
            row.name,
            row.labels or {},
        )
        for row in rows
    ]
