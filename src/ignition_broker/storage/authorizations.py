"""Dances begun: one row each, taken once."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text

from ignition_broker.cipher import Cipher
from ignition_broker.oauth.tokens import CodeVerifier
from ignition_broker.storage.connection import Connection

BEGIN = text("""
    INSERT INTO authorizations
        (state_hash, tenant_id, code_verifier, browser_hash, expires_at, actor)
    VALUES (:state_hash, :tenant, :code_verifier, :browser_hash,
            now() + make_interval(secs => :lifetime), :actor)
""")

# The browser is part of the key: a stranger with the state can't even spend it.
TAKE = text("""
    DELETE FROM authorizations
    WHERE state_hash = :state_hash AND browser_hash = :browser_hash
    RETURNING tenant_id, code_verifier, actor, expires_at > now() AS is_live
""")

CLEAR = text("""
    DELETE FROM authorizations WHERE state_hash IN (
        SELECT state_hash FROM authorizations WHERE expires_at < now() - interval '1 hour'
        FOR UPDATE SKIP LOCKED
    )
""")


@dataclass(frozen=True, slots=True)
class Authorization:
    tenant: str
    code_verifier: CodeVerifier
    actor: str
    is_live: bool


async def begin(
    connection: Connection,
    cipher: Cipher,
    *,
    state_hash: bytes,
    tenant: str,
    code_verifier: CodeVerifier,
    browser_hash: bytes,
    lifetime_seconds: float,
    actor: str,
) -> None:
    await connection.execute(
        BEGIN,
        {
            "state_hash": state_hash,
            "tenant": tenant,
            "code_verifier": cipher.encrypt(tenant, "code_verifier", code_verifier.reveal()),
            "browser_hash": browser_hash,
            "lifetime": lifetime_seconds,
            "actor": actor,
        },
    )


async def take(
    connection: Connection, cipher: Cipher, *, state_hash: bytes, browser_hash: bytes
) -> Authorization | None:
    """The dance that this state and browser began, gone from the table with this call."""
    row = (
        await connection.execute(TAKE, {"state_hash": state_hash, "browser_hash": browser_hash})
    ).one_or_none()
    if row is None:
        return None
    verifier = cipher.decrypt(row.tenant_id, "code_verifier", row.code_verifier)
    return Authorization(row.tenant_id, CodeVerifier(verifier), row.actor, row.is_live)


async def clear(connection: Connection) -> None:
    await connection.execute(CLEAR)
