"""Sign-ins whose callback has come: whether they may still connect, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from ignition_broker.storage.connection import Connection
from ignition_broker.storage.makers import Standing, maker_stands
from ignition_broker.storage.renewability import HAS_KNOWN_END, IS_RENEWABLE

# The locks make whoever revokes the maker or the link wait until this transaction has ended: a
# revocation that was answered is never followed by a connect.
JUDGE = text(f"""
    SELECT c.expires_at,
        coalesce(c.generation, t.generation) = t.generation AS is_current,
        {maker_stands("c", "FOR SHARE")} AS maker_stands,
        c.link_id IS NULL OR EXISTS (
            SELECT FROM connect_links l
            WHERE l.tenant_id = c.tenant_id AND l.id = c.link_id AND l.revoked_at IS NULL FOR SHARE
        ) AS link_stands
    FROM callbacks c JOIN tenants t ON t.id = c.tenant_id
    WHERE c.state_hash = :state_hash
""")  # noqa: S608  # constants of these modules alone

CONNECTED = text("""
    UPDATE callbacks c SET connected_at = now(), connected_generation = t.generation,
        scope = :scope, expires_at = :expires_at, warning = :warning
    FROM tenants t WHERE c.state_hash = :state_hash AND t.id = c.tenant_id
""")

FORGET = text("DELETE FROM callbacks WHERE state_hash = :state_hash")

# While the callback is current, the tenant's grant is the one that it connected.
FIND = text(f"""
    SELECT c.tenant_id, c.scope, c.expires_at, c.warning,
        coalesce({IS_RENEWABLE}, true) AS is_renewable,
        coalesce({HAS_KNOWN_END}, true) AS has_known_end,
        c.connected_generation = t.generation AS is_current,
        extract(epoch FROM now() - c.taken_at)::float8 AS age_seconds
    FROM callbacks c JOIN tenants t ON t.id = c.tenant_id
    LEFT JOIN grants ON grants.tenant_id = c.tenant_id
    WHERE c.state_hash = :state_hash AND c.browser_hash = :browser_hash
      AND c.taken_at > now() - make_interval(secs => :shown_for)
""")  # noqa: S608

CLEAR = text("""
    DELETE FROM callbacks WHERE state_hash IN (
        SELECT state_hash FROM callbacks WHERE taken_at < now() - interval '1 day'
        FOR UPDATE SKIP LOCKED
    )
""")


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a sign-in may store its grant.

    ``expires_at``: when the access token ends, where it did so already. ``is_current``: no connect
    and no disconnect of its tenant since it was begun. ``maker_stands``, ``link_stands``: what
    began it was not revoked and has not ended.
    """

    expires_at: datetime | None
    is_current: bool
    maker_stands: bool
    link_stands: bool


@dataclass(frozen=True, slots=True)
class PastCallback:
    """``is_current``: no connect and no disconnect since it connected. ``scope`` and ``expires_at``
    are None until it has connected."""

    tenant: str
    is_current: bool
    scope: str | None
    expires_at: datetime | None
    warning: str | None
    age_seconds: float
    is_renewable: bool
    has_known_end: bool


async def judge(connection: Connection, state_hash: bytes, standing: Standing) -> Judgement | None:
    """None where it is not there: it failed, or was taken by the release before.

    Decides for good only in a transaction that has locked the tenant (`tenants.lock`).
    """
    parameters = {"state_hash": state_hash, **standing.parameters()}
    row = (await connection.execute(JUDGE, parameters)).one_or_none()
    if row is None:
        return None
    return Judgement(row.expires_at, row.is_current, row.maker_stands, row.link_stands)


async def note_connected(
    connection: Connection,
    state_hash: bytes,
    *,
    scope: str,
    expires_at: datetime,
    warning: str | None,
) -> None:
    """In the transaction that stored its grant and began the tenant's new generation."""
    parameters = {
        "state_hash": state_hash,
        "scope": scope,
        "expires_at": expires_at,
        "warning": warning,
    }
    await connection.execute(CONNECTED, parameters)


async def forget(connection: Connection, state_hash: bytes) -> None:
    """It failed."""
    await connection.execute(FORGET, {"state_hash": state_hash})


async def find(
    connection: Connection, *, state_hash: bytes, browser_hash: bytes, shown_for_seconds: float
) -> PastCallback | None:
    """For the browser that brought it, and for so long."""
    parameters = {
        "state_hash": state_hash,
        "browser_hash": browser_hash,
        "shown_for": shown_for_seconds,
    }
    row = (await connection.execute(FIND, parameters)).one_or_none()
    if row is None:
        return None
    return PastCallback(
        tenant=row.tenant_id,
        is_current=bool(row.is_current),
        scope=row.scope,
        expires_at=row.expires_at,
        warning=row.warning,
        age_seconds=row.age_seconds,
        is_renewable=row.is_renewable,
        has_known_end=row.has_known_end,
    )


async def clear(connection: Connection) -> None:
    await connection.execute(CLEAR)
