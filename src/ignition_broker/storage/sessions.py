"""Browser sessions of admins, stored as hashes and timed by the database's clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from ignition_broker.storage.connection import Connection

# `sign_on_hash` is unique: one sign-on at the identity provider begins one session.
BEGIN = text("""
    INSERT INTO sessions (token_hash, actor, key_hash, issuer, groups, sign_on_hash,
                          authenticated_at)
    VALUES (:token_hash, :actor, :key_hash, :issuer, :groups, :sign_on_hash,
            now() - make_interval(secs => :authenticated_seconds_ago))
    ON CONFLICT (sign_on_hash) DO NOTHING
    RETURNING actor
""")

_IS_LIVE = """
    token_hash = :token_hash AND ended_at IS NULL
    AND seen_at > now() - make_interval(secs => :idle)
    AND begun_at > now() - make_interval(secs => :lifetime)
"""

# Each use postpones the end of an idle session, unless the row is locked.
USE = text(f"""
    WITH free AS (
        SELECT token_hash FROM sessions WHERE {_IS_LIVE} FOR NO KEY UPDATE SKIP LOCKED
    ), seen AS (
        UPDATE sessions SET seen_at = now() FROM free
        WHERE sessions.token_hash = free.token_hash
    )
    SELECT actor, key_hash, issuer, groups,
        coalesce(authenticated_at > now() - make_interval(secs => :fresh), false) AS is_fresh
    FROM sessions WHERE {_IS_LIVE}
""")  # noqa: S608  # constants of this module alone

END = text("""
    UPDATE sessions SET ended_at = now() WHERE token_hash = :token_hash AND ended_at IS NULL
    RETURNING actor
""")

LIST = text("""
    SELECT token_hash, actor, key_hash IS NULL AS is_by_sign_on, begun_at, seen_at
    FROM sessions
    WHERE ended_at IS NULL AND seen_at > now() - make_interval(secs => :idle)
      AND begun_at > now() - make_interval(secs => :lifetime)
    ORDER BY begun_at DESC LIMIT 500
""")

# Kept long after their end, because the row keeps its sign-on from being used twice.
CLEAR = text("""
    DELETE FROM sessions WHERE token_hash IN (
        SELECT token_hash FROM sessions WHERE begun_at < now() - interval '1 day'
        FOR UPDATE SKIP LOCKED
    )
""")


@dataclass(frozen=True, slots=True)
class SessionOrigin:
    """Who began a session and how: by an API key, or by a sign-on at ``issuer``.

    ``authenticated_seconds_ago`` is None if it is unknown when they last authenticated.
    """

    actor: str
    key_hash: bytes | None = None
    issuer: str | None = None
    groups: Sequence[str] | None = None
    sign_on_hash: bytes | None = None
    authenticated_seconds_ago: float | None = 0.0


@dataclass(frozen=True, slots=True)
class LiveSession:
    """``is_fresh``: the admin authenticated recently enough for sensitive actions."""

    actor: str
    key_hash: bytes | None
    issuer: str | None
    groups: tuple[str, ...]
    is_fresh: bool


@dataclass(frozen=True, slots=True)
class ListedSession:
    """``is_by_sign_on``: by single sign-on, and not by a key."""

    token_hash: bytes
    actor: str
    is_by_sign_on: bool
    begun_at: datetime
    seen_at: datetime


async def begin(connection: Connection, token_hash: bytes, origin: SessionOrigin) -> bool:
    """Begins a session; returns False if its sign-on has begun one already."""
    parameters = {
        "token_hash": token_hash,
        "actor": origin.actor,
        "key_hash": origin.key_hash,
        "issuer": origin.issuer,
        "groups": None if origin.groups is None else list(origin.groups),
        "sign_on_hash": origin.sign_on_hash,
        "authenticated_seconds_ago": origin.authenticated_seconds_ago,
    }
    return (await connection.execute(BEGIN, parameters)).one_or_none() is not None


async def use(
    connection: Connection,
    token_hash: bytes,
    *,
    idle_seconds: float,
    lifetime_seconds: float,
    fresh_seconds: float,
) -> LiveSession | None:
    """The session, which counts as used now; None if it has ended.

    It ends ``idle_seconds`` after its last use and ``lifetime_seconds`` after its beginning, and is
    fresh for ``fresh_seconds`` after the admin authenticated.
    """
    parameters = {
        "token_hash": token_hash,
        "idle": idle_seconds,
        "lifetime": lifetime_seconds,
        "fresh": fresh_seconds,
    }
    row = (await connection.execute(USE, parameters)).one_or_none()
    if row is None:
        return None
    return LiveSession(row.actor, row.key_hash, row.issuer, tuple(row.groups or ()), row.is_fresh)


async def end(connection: Connection, token_hash: bytes) -> str | None:
    """Ends a session; returns whose it was, or None if it had ended before."""
    row = (await connection.execute(END, {"token_hash": token_hash})).one_or_none()
    return None if row is None else row.actor


async def live(
    connection: Connection, *, idle_seconds: float, lifetime_seconds: float
) -> Sequence[ListedSession]:
    """The sessions that have not ended, newest first; arguments as in `use`."""
    given = {"idle": idle_seconds, "lifetime": lifetime_seconds}
    return [
        ListedSession(row.token_hash, row.actor, row.is_by_sign_on, row.begun_at, row.seen_at)
        for row in await connection.execute(LIST, given)
    ]


async def clear(connection: Connection) -> None:
    """Deletes sessions that began a day ago."""
    await connection.execute(CLEAR)
