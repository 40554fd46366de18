"""Tokens to be revoked at Ignition, kept until it has answered.

``next_try_at`` is also a lease: a replica first moves it past the end of its own try. If that
replica is killed, another one tries when that time has come.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import text

from ignition_broker.cipher import Cipher
from ignition_broker.grant_ids import DEFAULT_CLIENT
from ignition_broker.model import Actor, AuditEvent
from ignition_broker.oauth.tokens import AccessToken, RefreshToken
from ignition_broker.storage.audit import audit_parameters
from ignition_broker.storage.connection import Connection, Row
from ignition_broker.storage.grant_columns import OTHER_CLIENT, TENANT

COLUMN = "revocation"
"""The name of the column for `Cipher`, which binds a ciphertext to it."""
TRIED_FOR_SECONDS = 86_400.0

ADD = text("""
    INSERT INTO pending_revocations (tenant_id, token, token_kind, actor, request_id, next_try_at)
    VALUES (:tenant, :token, :kind, :actor, :request_id, now() + make_interval(secs => :lease))
    RETURNING id
""")

# A token of a client that this replica does not know is left to others for as long as it is tried.
CLAIM = text(f"""
    UPDATE pending_revocations SET tries = tries + 1,
        next_try_at = now() + make_interval(secs => :lease)
    WHERE id = (
        SELECT id FROM pending_revocations WHERE next_try_at < now()
          AND ({OTHER_CLIENT} = ANY(:clients)
               OR requested_at < now() - make_interval(secs => :tried_for))
        ORDER BY next_try_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id, tenant_id, token, token_kind, actor, request_id, tries,
        requested_at < now() - make_interval(secs => :tried_for) AS is_last_try
""")  # noqa: S608  # constants of this package alone

POSTPONE = text("""
    UPDATE pending_revocations SET next_try_at = now() + make_interval(secs => :wait)
    WHERE id = :id
""")

# Two replicas may both have tried; the result is recorded once.
SETTLE = text(f"""
    WITH settled AS (DELETE FROM pending_revocations WHERE id = :id RETURNING tenant_id)
    INSERT INTO audit_events (tenant_id, actor, action, outcome, request_id, detail)
    SELECT {TENANT}, :actor, 'revoke', :outcome, :request_id, CAST(:detail AS jsonb) FROM settled
    RETURNING id
""")  # noqa: S608

SEALED = text("""
    SELECT id, tenant_id, token FROM pending_revocations WHERE id > :after ORDER BY id LIMIT :limit
""")

REPLACE = text("UPDATE pending_revocations SET token = :fresh WHERE id = :id AND token = :before")


@dataclass(frozen=True, slots=True)
class SealedRevocation:
    """The ciphertext of a token to be revoked."""

    id: int
    tenant: str
    token: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PendingRevocation:
    """``tries``: how many were made before this one. ``is_last_try``: `TRIED_FOR_SECONDS` are
    over."""

    id: int
    tenant: str
    token: bytes = field(repr=False)
    kind: str
    actor: Actor
    tries: int = 0
    is_last_try: bool = False


async def add(
    connection: Connection,
    cipher: Cipher,
    tenant: str,
    token: RefreshToken | AccessToken,
    actor: Actor,
    *,
    lease_seconds: float,
) -> PendingRevocation:
    """Stores a token to be revoked, leased to the caller for ``lease_seconds``, who tries at
    once."""
    sealed = cipher.encrypt(tenant, COLUMN, token.reveal())
    kind = "refresh_token" if isinstance(token, RefreshToken) else "access_token"
    parameters = {
        "tenant": tenant,
        "token": sealed,
        "kind": kind,
        "actor": actor.name,
        "request_id": actor.request_id,
        "lease": lease_seconds,
    }
    added = (await connection.execute(ADD, parameters)).one()
    return PendingRevocation(added.id, tenant, sealed, kind, actor)


async def claim(
    connection: Connection, *, lease_seconds: float, clients: Iterable[str] = (DEFAULT_CLIENT,)
) -> PendingRevocation | None:
    """Leases the revocation that is longest overdue for ``lease_seconds``; None if none is due.

    ``clients``: whose tokens this process can revoke. A token of another client comes only for its
    last try.
    """
    others = ["" if client == DEFAULT_CLIENT else client for client in clients]
    parameters = {"lease": lease_seconds, "tried_for": TRIED_FOR_SECONDS, "clients": others}
    row: Row | None = (await connection.execute(CLAIM, parameters)).one_or_none()
    if row is None:
        return None
    return PendingRevocation(
        id=row.id,
        tenant=row.tenant_id,
        token=row.token,
        kind=row.token_kind,
        actor=Actor(row.actor, row.request_id),
        tries=row.tries,
        is_last_try=row.is_last_try,
    )


def opened(cipher: Cipher, revocation: PendingRevocation) -> RefreshToken | AccessToken:
    """The token, decrypted. Raises `CipherError` if no key decrypts it."""
    text = cipher.decrypt(revocation.tenant, COLUMN, revocation.token)
    return RefreshToken(text) if revocation.kind == "refresh_token" else AccessToken(text)


async def sealed(connection: Connection, *, after: int, limit: int) -> list[SealedRevocation]:
    """At most ``limit`` ciphertexts of rows that follow ``after``, for `keys rotate`."""
    rows = await connection.execute(SEALED, {"after": after, "limit": limit})
    return [SealedRevocation(row.id, row.tenant_id, row.token) for row in rows]


async def replace(connection: Connection, before: SealedRevocation, fresh: bytes) -> None:
    """Stores the same token encrypted anew. The row may be gone by now."""
    parameters = {"id": before.id, "before": before.token, "fresh": fresh}
    await connection.execute(REPLACE, parameters)


async def postpone(connection: Connection, revocation: PendingRevocation, *, wait: float) -> None:
    """The next try is in ``wait`` seconds."""
    await connection.execute(POSTPONE, {"id": revocation.id, "wait": wait})


async def settle(connection: Connection, revocation: PendingRevocation, event: AuditEvent) -> None:
    """Deletes the token, whatever became of it, and records ``event``."""
    parameters = {
        "id": revocation.id,
        "actor": event.actor,
        "outcome": event.outcome,
        "request_id": event.request_id,
        "detail": audit_parameters(event)["detail"],
    }
    await connection.execute(SETTLE, parameters)
