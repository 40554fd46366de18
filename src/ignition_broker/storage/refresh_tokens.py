"""A new refresh token that came without an access token. The current access token stays."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text

from ignition_broker.model import AuditEvent, Lease
from ignition_broker.storage.audit import AUDIT_CHANGED, audit_parameters
from ignition_broker.storage.change_notices import NOTIFY_CHANGED
from ignition_broker.storage.connection import LOCK_BRIEFLY, Connection
from ignition_broker.storage.key_notes import ciphertext_end

# As in `new_tokens.STORE_REFRESHED`, only the version is checked. The access token is encrypted and
# stored again, because `keys rotate` sees by its ciphertext that a row has changed.
STORE_REFRESH_TOKEN = text(f"""
    WITH changed AS (
        UPDATE grants SET status = 'connected', refresh_token = :refresh_token,
            access_token = coalesce(CAST(:access_token AS bytea), access_token),
            key_fingerprint = :key_fingerprint, fingerprinted = :fingerprinted,
            version = version + 1, lease_owner = NULL, lease_until = NULL,
            refresh_started_at = NULL, failures = :failures, last_error = :last_error,
            refresh_token_expires_at = now() + make_interval(secs => :refresh_lifetime),
            next_refresh_at = now() + make_interval(secs => :retry_in)
        WHERE tenant_id = :tenant AND version = :version AND {LOCK_BRIEFLY}
        RETURNING tenant_id, version, status
    ), audited AS ({AUDIT_CHANGED})
    SELECT version, {NOTIFY_CHANGED} FROM changed
""")  # noqa: S608

FIND_REFRESH_TOKEN = text("""
    SELECT version FROM grants
    WHERE tenant_id = :tenant AND version = :version AND refresh_token = :refresh_token
""")


@dataclass(frozen=True, slots=True)
class SealedPair:
    """The new refresh token and the current access token, encrypted by ``key_fingerprint``'s key.

    ``access_token`` is None if it could not be decrypted: its ciphertext then stays.
    ``refresh_lifetime_seconds`` is None if the refresh token has no known end.
    """

    refresh_token: bytes
    access_token: bytes | None
    key_fingerprint: str
    refresh_lifetime_seconds: float | None


async def store(
    connection: Connection,
    lease: Lease,
    sealed: SealedPair,
    error: str,
    retry_in_seconds: float,
    event: AuditEvent,
) -> bool:
    """Stores the refresh token, ends the lease, and records ``event``.

    The access token and its expiry stay. The next renewal is in ``retry_in_seconds``; ``error`` is
    noted. Returns False if the row's version is no longer the lease's.
    """
    access_token = sealed.access_token
    parameters = {
        "tenant": lease.tenant,
        "version": lease.version,
        "refresh_token": sealed.refresh_token,
        "access_token": access_token,
        "key_fingerprint": sealed.key_fingerprint,
        "fingerprinted": None if access_token is None else ciphertext_end(access_token),
        "refresh_lifetime": sealed.refresh_lifetime_seconds,
        "failures": lease.failures + 1,
        "last_error": error,
        "retry_in": retry_in_seconds,
        **audit_parameters(event),
    }
    return (await connection.execute(STORE_REFRESH_TOKEN, parameters)).one_or_none() is not None


async def is_stored(connection: Connection, lease: Lease, sealed: SealedPair) -> bool:
    """Whether `store` was committed if its connection broke before it could say so."""
    parameters = {
        "tenant": lease.tenant,
        "version": lease.version + 1,
        "refresh_token": sealed.refresh_token,
    }
    return (await connection.execute(FIND_REFRESH_TOKEN, parameters)).one_or_none() is not None
