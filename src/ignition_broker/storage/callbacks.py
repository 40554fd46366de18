"""Sign-ins whose callback has come: whether they may still connect, and their result."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from ignition_broker.model import Account
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.makers import Standing, maker_stands
from ignition_broker.storage.renewability import HAS_KNOWN_END, IS_RENEWABLE

# The locks make a revocation of the maker or the link wait until this transaction ends, so that no
# sign-in connects after a revocation was confirmed.
JUDGE = text(f"""
    SELECT c.expires_at, c.scope,
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

# As long as the callback is current, the tenant's grant is the one that it connected.
FIND = text(f"""
    SELECT c.tenant_id, c.scope, c.expires_at, c.warning,
        coalesce({IS_RENEWABLE}, true) AS is_renewable,
        coalesce({HAS_KNOWN_END}, true) AS has_known_end,
        c.connected_generation = t.generation AS is_current,
        CASE WHEN t.account_connected_at = grants.connected_at THEN t.account_id END AS account_id,
        t.account_name,
        (SELECT h.account_id FROM held_grants h WHERE h.tenant_id = c.tenant_id
            AND h.state_hash = c.state_hash AND h.generation = t.generation) AS held_id,
        (SELECT h.account_name FROM held_grants h WHERE h.tenant_id = c.tenant_id
            AND h.state_hash = c.state_hash) AS held_name,
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

    ``expires_at``: when the access token expires, if the sign-in has stored its grant already;
    ``scope``: of that grant.
    ``is_current``: its tenant was neither connected nor disconnected since it began.
    ``maker_stands``, ``link_stands``: what began it has neither been revoked nor expired.
    """

    expires_at: datetime | None
    is_current: bool
    maker_stands: bool
    link_stands: bool
    scope: str | None = None


@dataclass(frozen=True, slots=True)
class PastCallback:
    """A callback that has come. ``is_current``: its tenant was neither connected nor disconnected
    since. ``scope`` and ``expires_at`` are None until it has connected. ``account``: whose the
    tenant's grant is, if known; ``held_account``: another one, which an admin has to confirm."""

    tenant: str
    is_current: bool
    scope: str | None
    expires_at: datetime | None
    warning: str | None
    age_seconds: float
    is_renewable: bool
    has_known_end: bool
    account: Account | None
    held_account: Account | None


async def judge(connection: Connection, state_hash: bytes, standing: Standing) -> Judgement | None:
    """Whether this sign-in may connect. The answer is reliable only in a transaction that has
    locked the tenant (`tenants.lock`).

    Returns None if the sign-in is unknown: it failed, or the release before took it.
    """
    parameters = {"state_hash": state_hash, **standing.parameters()}
    row = (await connection.execute(JUDGE, parameters)).one_or_none()
    if row is None:
        return None
    return Judgement(row.expires_at, row.is_current, row.maker_stands, row.link_stands, row.scope)


async def note_connected(
    connection: Connection,
    state_hash: bytes,
    *,
    scope: str,
    expires_at: datetime,
    warning: str | None,
) -> None:
    """Notes the result of a sign-in, in the transaction that stored its grant and raised the
    tenant's generation. ``warning``: for the admin who connected, if any."""
    parameters = {
        "state_hash": state_hash,
        "scope": scope,
        "expires_at": expires_at,
        "warning": warning,
    }
    await connection.execute(CONNECTED, parameters)


async def forget(connection: Connection, state_hash: bytes) -> None:
    """Deletes a sign-in that failed."""
    await connection.execute(FORGET, {"state_hash": state_hash})


async def find(
    connection: Connection, *, state_hash: bytes, browser_hash: bytes, shown_for_seconds: float
) -> PastCallback | None:
    """A callback for the browser that brought it, if it came at most ``shown_for_seconds`` ago."""
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
        account=None if row.account_id is None else Account(row.account_id, row.account_name),
        held_account=None if row.held_id is None else Account(row.held_id, row.held_name),
    )


async def clear(connection: Connection) -> None:
    """Deletes callbacks that are a day old."""
    await connection.execute(CLEAR)
