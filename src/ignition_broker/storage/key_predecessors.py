"""Keys that a rotation replaced and that work for a while yet."""

from __future__ import annotations

from sqlalchemy import text

from ignition_broker.storage.connection import Connection

# A rotation bounds all keys before it, so that one with no grace ends them all, and one that is
# sent twice, since its answer was lost, ends none of them early.
SHORTEN = text("""
    UPDATE api_key_predecessors
    SET expires_at = LEAST(expires_at, clock_timestamp() + make_interval(secs => :grace))
    WHERE name = :name
""")

ADD = text("""
    INSERT INTO api_key_predecessors (key_hash, name, replaced_at, expires_at)
    SELECT key_hash, name, clock_timestamp(),
        LEAST(expires_at, clock_timestamp() + make_interval(secs => :grace))
    FROM api_keys WHERE name = :name
""")

CLEAR = text("""
    DELETE FROM api_key_predecessors WHERE name = :name AND expires_at <= clock_timestamp()
""")

FORGET = text("DELETE FROM api_key_predecessors WHERE name = :name")


async def add(connection: Connection, name: str, *, grace_seconds: float) -> None:
    """The key of that name, as it is now, and all that it replaced work for at most
    ``grace_seconds`` from now, and no longer than they would have."""
    parameters = {"name": name, "grace": grace_seconds}
    await connection.execute(SHORTEN, parameters)
    await connection.execute(ADD, parameters)
    await connection.execute(CLEAR, {"name": name})
