"""One-time connect links, stored as hashes. Admins name a link by an id that is no secret.

A link works as long as its tenant was neither connected nor disconnected since it was created, and
what created it has neither been revoked nor expired.
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
                               made_by_key, made_by_setting, made_by_session, return_to)
    SELECT :token_hash, id, now() + make_interval(secs => :lifetime), :created_by, generation,
           :made_by_key, :made_by_setting, :made_by_session, :return_to
    FROM tenants WHERE id = :tenant
    RETURNING id, expires_at
""")

# A revoked link has `used_at` set too, for the release before.
_WORKS = f"""
    l.used_at IS NULL AND l.revoked_at IS NULL AND l.expires_at > now()
    AND coalesce(l.generation, t.generation) = t.generation AND {maker_stands("l")}
"""

READ = text(f"""
    SELECT l.id, l.tenant_id, l.created_by, l.return_to, {_WORKS} AS is_live
    FROM connect_links l JOIN tenants t ON t.id = l.tenant_id
    WHERE l.token_hash = :token_hash
""")  # noqa: S608  # constants of these modules alone

# Before and after its callback came, a sign-in is in one of two tables.
BEHIND = text("""
    SELECT a.link_id IS NOT NULL AS has_link, l.return_to
    FROM (
        SELECT tenant_id, link_id FROM authorizations
        WHERE state_hash = :state_hash AND browser_hash = :browser_hash
        UNION ALL
        SELECT tenant_id, link_id FROM callbacks
        WHERE state_hash = :state_hash AND browser_hash = :browser_hash
    ) a
    LEFT JOIN connect_links l ON l.tenant_id = a.tenant_id AND l.id = a.link_id
    LIMIT 1
""")

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

# Kept for a while, so that a late click is told "expired" and not "forged".
CLEAR = text("""
    DELETE FROM connect_links WHERE token_hash IN (
        SELECT token_hash FROM connect_links WHERE expires_at < now() - interval '30 days'
        FOR UPDATE SKIP LOCKED
    )
""")


@dataclass(frozen=True, slots=True)
class ConnectLink:
    """``return_to``: where its pages lead back to, if anywhere."""

    tenant: str
    created_by: str
    is_live: bool
    return_to: str | None = None


@dataclass(frozen=True, slots=True)
class SignInOrigin:
    """What a browser's sign-in was begun from: a link or the console. ``return_to``: the link's."""

    has_link: bool
    return_to: str | None


@dataclass(frozen=True, slots=True)
class SpentLink:
    """What a sign-in takes over from the link that began it."""

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
    return_to: str | None = None,
) -> ListedLink:
    """Stores a link for an existing tenant."""
    parameters = {
        "token_hash": token_hash,
        "tenant": tenant,
        "lifetime": lifetime_seconds,
        "created_by": created_by,
        "return_to": return_to,
        **maker.parameters(),
    }
    row = (await connection.execute(CREATE, parameters)).one()
    return ListedLink(row.id, row.expires_at, created_by, None)


async def read(connection: Connection, token_hash: bytes, standing: Standing) -> ConnectLink | None:
    """The link, and whether it still works; None if there is none."""
    parameters = {"token_hash": token_hash, **standing.parameters()}
    row = (await connection.execute(READ, parameters)).one_or_none()
    if row is None:
        return None
    return ConnectLink(row.tenant_id, row.created_by, row.is_live, row.return_to)


async def behind(
    connection: Connection, state_hash: bytes, browser_hash: bytes
) -> SignInOrigin | None:
    """What that browser's sign-in was begun from; None if there is no such sign-in, or it failed
    before."""
    parameters = {"state_hash": state_hash, "browser_hash": browser_hash}
    row = (await connection.execute(BEHIND, parameters)).one_or_none()
    return None if row is None else SignInOrigin(row.has_link, row.return_to)


async def spend(connection: Connection, token_hash: bytes, standing: Standing) -> SpentLink | None:
    """Uses the link up, if it still works; of two clicks only one gets it."""
    parameters = {"token_hash": token_hash, **standing.parameters()}
    row = (await connection.execute(SPEND, parameters)).one_or_none()
    if row is None:
        return None
    maker = Maker(row.made_by_key, row.made_by_setting, row.made_by_session)
    return SpentLink(row.id, row.tenant_id, row.created_by, row.generation, maker)


async def list_of(connection: Connection, tenant: str, standing: Standing) -> Sequence[ListedLink]:
    """The tenant's links that work or were used, the newest first."""
    parameters = {"tenant": tenant, **standing.parameters()}
    rows = await connection.execute(LIST, parameters)
    return [ListedLink(row.id, row.expires_at, row.created_by, row.used_at) for row in rows]


async def revoke(connection: Connection, tenant: str, link_id: str) -> str | None:
    """Revokes a link, and with it a sign-in that it began. Returns who created it; None if there is
    no such link, or it is revoked already."""
    created_by: str | None = await connection.scalar(REVOKE, {"tenant": tenant, "id": link_id})
    return created_by


async def revoke_all(connection: Connection, tenant: str) -> None:
    """Revokes all links of the tenant that were not used."""
    await connection.execute(REVOKE_ALL, {"tenant": tenant})


async def clear(connection: Connection) -> None:
    """Deletes links that expired 30 days ago."""
    await connection.execute(CLEAR)
