"""Sign-ins at Ignition that have begun and whose callback has not come yet."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text

from ignition_broker.cipher import Cipher
from ignition_broker.oauth.tokens import CodeVerifier
from ignition_broker.storage.connect_links import SpentLink
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.makers import Maker

# A sign-in that a link began has the link's generation.
BEGIN = text("""
    INSERT INTO authorizations (state_hash, tenant_id, code_verifier, browser_hash, expires_at,
        actor, generation, made_by_key, made_by_setting, made_by_session, link_id)
    SELECT :state_hash, id, :code_verifier, :browser_hash,
        now() + make_interval(secs => :lifetime), :actor,
        coalesce(CAST(:generation AS bigint), generation),
        :made_by_key, :made_by_setting, :made_by_session, :link_id
    FROM tenants WHERE id = :tenant
""")

# The browser is part of the key, so that a stranger who knows the state can't even use it up. The
# row moves to another table, because the release before would take it again.
TAKE = text("""
    WITH taken AS (
        DELETE FROM authorizations
        WHERE state_hash = :state_hash AND browser_hash = :browser_hash
        RETURNING *
    ), kept AS (
        INSERT INTO callbacks (state_hash, browser_hash, tenant_id, generation, made_by_key,
            made_by_setting, made_by_session, link_id)
        SELECT state_hash, browser_hash, tenant_id, generation, made_by_key, made_by_setting,
            made_by_session, link_id
        FROM taken
    )
    SELECT tenant_id, code_verifier, actor, expires_at > now() AS is_live FROM taken
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
    maker: Maker,
    link: SpentLink | None,
) -> None:
    """Stores a sign-in of an existing tenant.

    ``lifetime_seconds``: how long its callback is accepted. ``maker``: what began it. ``link``: the
    link that was clicked, if any.
    """
    await connection.execute(
        BEGIN,
        {
            "state_hash": state_hash,
            "tenant": tenant,
            "code_verifier": cipher.encrypt(tenant, "code_verifier", code_verifier.reveal()),
            "browser_hash": browser_hash,
            "lifetime": lifetime_seconds,
            "actor": actor,
            "generation": None if link is None else link.generation,
            "link_id": None if link is None else link.id,
            **maker.parameters(),
        },
    )


async def take(
    connection: Connection, cipher: Cipher, *, state_hash: bytes, browser_hash: bytes
) -> Authorization | None:
    """Removes and returns the sign-in with that state and browser, so that no other call gets it.

    Its result will be found in `storage.callbacks`. Returns None if there is none. Raises
    `CipherError` if no key decrypts its code verifier.
    """
    row = (
        await connection.execute(TAKE, {"state_hash": state_hash, "browser_hash": browser_hash})
    ).one_or_none()
    if row is None:
        return None
    verifier = cipher.decrypt(row.tenant_id, "code_verifier", row.code_verifier)
    return Authorization(row.tenant_id, CodeVerifier(verifier), row.actor, row.is_live)


async def clear(connection: Connection) -> None:
    """Deletes sign-ins that expired an hour ago."""
    await connection.execute(CLEAR)
