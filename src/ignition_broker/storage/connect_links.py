"""One-time links, known by their hash, and to admins by an id that is no secret.

A link works while its tenant has had no connect and no disconnect since it was made, and while
what made it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from ignition_broker.storage.connection import Connection
from ignition_broker.storage.makers import Maker, Standing, maker_stands

CREATE = text("""
    INSERT INTO connect_links (token_hash, tenant_id, expires_at, created_by, generation,
                               made_by_key, made_by_setting, made_by_session)
    SELECT :token_hash, id, now() + make_interval(secs => :lifetime), :created_by, generation,
           :made_by_key, :made_by_setting, :made_by_session
    FROM tenants WHERE id = :tenant
    RETURNING id, expires_at
""")

# `used_at` tells the release before that a link was revoked.
_WORKS = f"""
    l.used_at IS NULL AND l.revoked_at IS NULL AND l.expires_at > now()
    AND coalesce(l.generation, t.generation) = t.generation AND {maker_stands("l")}
"""

READ = text(f"""
    SELECT l.id, l.tenant_id, l.created_by, {_WORKS} AS is_live
    FROM connect_links l JOIN tenants t ON t.id = l.tenant_id
    WHERE l.token_hash = :token_hash
""")  # noqa: S608  # constants of these modules alone

SPEND = text(f"""
    UPDATE connect_links l SET used_at = now() FROM tenants t
    WHERE l.token_hash = :token_hash AND t.id = l.tenant_id AND {_WORKS}
    RETURNING l.id, l.tenant_id, l.created_by, coalesce(l.generation, t.generation) AS generation,
        l.made_by_key, l.made_by_setting, l.made_by_session
""")  # noqa: S608

LIST = text(f"""
    SELECT l.id, l.expires_at, l.created_by, l.used_at
    FROM connect_links l JOIN tenants t ON t.id = l.tenant_id
    WHERE l.tenant_id = :tenant AND l.revoked_at IS NULL
      AND (l.used_at IS NOT NULL OR {_WORKS})
    ORDER BY l.expires_at DESC, l.id
""")  # noqa: S608

REVOKE = text("""
    UPDATE connect_links SET used_at = coalesce(used_at, now()), revoked_at = now()
    WHERE tenant_id = :tenant AND id = :id AND revoked_at IS NULL
    RETURNING created_by
""")

REVOKE_ALL = text("""
    UPDATE connect_links SET used_at = now(), revoked_at = now()
    WHERE tenant_id = :tenant AND used_at IS NULL
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


@dataclass(frozen=True, slots=True)
class SpentLink:
    """What a sign-in that a link begins takes over from it."""

    id: str
    tenant: str
    created_by: str
    generation: int
    maker: Maker


@dataclass(frozen=True, slots=True)
class ListedLink:
    id: str
    expires_at: datetime
    created_by: str
    used_at: datetime | None


async def create(
    connection: Connection,
    *,
    token_hash: bytes,
    tenant: str,
    lifetime_seconds: float,
    created_by: str,
    maker: Maker,
) -> ListedLink:
    """For a tenant that is there."""
    parameters = {
        "token_hash": token_hash,
        "tenant": tenant,
        "lifetime": lifetime_seconds,
        "created_by": created_by,
        **maker.parameters(),
    }
    row = (await connection.execute(CREATE, parameters)).one()
    return ListedLink(row.id, row.expires_at, created_by, None)


async def read(connection: Connection, token_hash: bytes, standing: Standing) -> ConnectLink | None:
    parameters = {"token_hash": token_hash, **standing.parameters()}
    row = (await connection.execute(READ, parameters)).one_or_none()
    return None if row is None else ConnectLink(row.tenant_id, row.created_by, row.is_live)


async def spend(connection: Connection, token_hash: bytes, standing: Standing) -> SpentLink | None:
    """The link, if it still worked; of two clicks one gets it."""
    parameters = {"token_hash": token_hash, **standing.parameters()}
    row = (await connection.execute(SPEND, parameters)).one_or_none()
    if row is None:
        return None
    maker = Maker(row.made_by_key, row.made_by_setting, row.made_by_session)
    return SpentLink(row.id, row.tenant_id, row.created_by, row.generation, maker)


async def list_of(connection: Connection, tenant: str, standing: Standing) -> Sequence[ListedLink]:
    """Those that work and those that were used, the newest first."""
    parameters = {"tenant": tenant, **standing.parameters()}
    rows = await connection.execute(LIST, parameters)
    return [ListedLink(row.id, row.expires_at, row.created_by, row.used_at) for row in rows]


async def revoke(connection: Connection, tenant: str, link_id: str) -> str | None:
    """Who made it; None where there is no such link, or it was revoked before. A sign-in that it
    began connects nothing any more."""
    created_by: str | None = await connection.scalar(REVOKE, {"tenant": tenant, "id": link_id})
    return created_by


async def revoke_all(connection: Connection, tenant: str) -> None:
    await connection.execute(REVOKE_ALL, {"tenant": tenant})


async def clear(connection: Connection) -> None:
    await connection.execute(CLEAR)
