"""A renewal that brought no tokens: refused, not carried out, or its answer lost.

Each of these ends the lease and records an audit event.
"""

from __future__ import annotations

from sqlalchemy import TextClause, text

from ignition_broker.model import AuditEvent, Lease
from ignition_broker.storage.audit import AUDIT_CHANGED, audit_parameters
from ignition_broker.storage.change_notices import NOTIFY_CHANGED
from ignition_broker.storage.connection import LOCK_BRIEFLY, Connection

RECORD_REFUSAL = text(f"""
    WITH changed AS (
        UPDATE grants SET status = 'reauthorization_required', lease_owner = NULL,
            lease_until = NULL, refresh_started_at = NULL, next_refresh_at = NULL,
            last_error = :error
        WHERE tenant_id = :tenant AND version = :version AND lease_owner = :owner
          AND status = 'connected' AND {LOCK_BRIEFLY}
        RETURNING tenant_id, version, status
    ), audited AS ({AUDIT_CHANGED})
    SELECT version, {NOTIFY_CHANGED} FROM changed
""")  # noqa: S608  # constants of this package alone

# The refresh token was not used, so that it is exactly as (un)certain as before this try.
RECORD_NOT_USED = text(f"""
    WITH changed AS (
        UPDATE grants SET lease_owner = NULL, lease_until = NULL,
            refresh_started_at = CASE WHEN :was_uncertain THEN refresh_started_at END,
            failures = failures + 1, last_error = :error,
            next_refresh_at = now() + make_interval(secs => :retry_in)
        WHERE tenant_id = :tenant AND version = :version AND lease_owner = :owner
          AND {LOCK_BRIEFLY}
        RETURNING tenant_id, version, status
    ), audited AS ({AUDIT_CHANGED})
    SELECT version, {NOTIFY_CHANGED} FROM changed
""")  # noqa: S608

RECORD_ANSWER_LOST = text(f"""
    WITH changed AS (
        UPDATE grants SET lease_owner = NULL, lease_until = NULL,
            failures = failures + 1, last_error = :error,
            next_refresh_at = greatest(
                CASE WHEN :was_uncertain THEN NULL ELSE expires_at END,
                now() + make_interval(secs => :retry_in))
        WHERE tenant_id = :tenant AND version = :version AND lease_owner = :owner
          AND {LOCK_BRIEFLY}
        RETURNING tenant_id, version, status
    ), audited AS ({AUDIT_CHANGED})
    SELECT version, {NOTIFY_CHANGED} FROM changed
""")  # noqa: S608


async def record_refusal(
    connection: Connection, lease: Lease, error: str, event: AuditEvent
) -> bool:
    """Ignition refused the refresh token for good: the tenant must connect again.

    Returns False, and records nothing, if the version or the lease has changed meanwhile.
    """
    return await _recorded(connection, RECORD_REFUSAL, lease, event, error=error)


async def record_not_used(
    connection: Connection,
    lease: Lease,
    error: str,
    retry_in_seconds: float,
    event: AuditEvent,
) -> bool:
    """The refresh token was not used up; it is tried again after ``retry_in_seconds``.

    Returns False, and records nothing, if the version or the lease has changed meanwhile.
    """
    return await _recorded(
        connection,
        RECORD_NOT_USED,
        lease,
        event,
        error=error,
        retry_in=retry_in_seconds,
        was_uncertain=lease.was_uncertain,
    )


async def record_answer_lost(
    connection: Connection,
    lease: Lease,
    error: str,
    retry_in_seconds: float,
    event: AuditEvent,
) -> bool:
    """The request was sent and its answer lost, so that the refresh token may be spent.

    After the first lost answer the next try waits until the access token has expired, after
    further ones for ``retry_in_seconds``.

    Returns False, and records nothing, if the version or the lease has changed meanwhile.
    """
    return await _recorded(
        connection,
        RECORD_ANSWER_LOST,
        lease,
        event,
        error=error,
        retry_in=retry_in_seconds,
        was_uncertain=lease.was_uncertain,
    )


async def _recorded(
    connection: Connection,
    statement: TextClause,
    lease: Lease,
    event: AuditEvent,
    **fields: object,
) -> bool:
    parameters = {
        **audit_parameters(event),
        "tenant": lease.tenant,
        "version": lease.version,
        "owner": lease.owner,
        **fields,
    }
    return (await connection.execute(statement, parameters)).one_or_none() is not None
