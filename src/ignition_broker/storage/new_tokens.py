"""Tokens that Ignition has just given, stored after a renewal or a code exchange."""

from __future__ import annotations

from sqlalchemy import text

from ignition_broker.model import AuditEvent, Lease
from ignition_broker.storage.audit import AUDIT_CHANGED, audit_parameters
from ignition_broker.storage.change_notices import NOTIFY_CHANGED
from ignition_broker.storage.connection import LOCK_BRIEFLY, Connection
from ignition_broker.storage.sealed_tokens import (
    AGE,
    RETURNED,
    Schedule,
    SealedTokens,
    Stored,
    first_due,
    left,
    sealed_parameters,
)

EARLY_RENEWAL_WINDOW_SECONDS = 120.0
"""Early renewals of one grant that are no further apart than this are counted together."""

USE_WINDOW_LIFETIMES = 3
"""A grant counts as in use if it was asked for within this many lifetimes of its tokens."""

# NULL if the refresh token has no known end, or if its end is fixed, so that renewing early gains
# nothing. An end is taken for fixed if since the last answer it moved by less than half of the time
# that passed.
_BEFORE_REFRESH_TOKEN_LAPSES = """
    CASE WHEN refresh_token_expires_at IS NULL
              OR now() - coalesce(refreshed_at, connected_at) < interval '2 seconds'
              OR now() + make_interval(secs => :refresh_left) - refresh_token_expires_at
                 > (now() - coalesce(refreshed_at, connected_at)) / 2
         THEN now() + make_interval(secs => :renew_refresh_token_in)
    END
"""

_WHEN_DUE = f"""
    CASE WHEN used_at > now() - make_interval(secs => :lifetime) * {USE_WINDOW_LIFETIMES}
         THEN least(now() + make_interval(secs => :renew_in), {_BEFORE_REFRESH_TOKEN_LAPSES})
         WHEN :keepalive > 0
         THEN least(now() + make_interval(secs => :keepalive), {_BEFORE_REFRESH_TOKEN_LAPSES})
    END
"""

_REFRESH_TOKEN_EXPIRES_AT = """
    CASE WHEN CAST(:refresh_left AS float8) IS NOT NULL
         THEN now() + make_interval(secs => :refresh_left)
         WHEN NOT :rotated THEN refresh_token_expires_at
    END
"""

# Early renewals within the window add up; any other renewal resets the count.
_EARLY_RENEWALS = """
    CASE WHEN NOT :is_early THEN 0
         WHEN refreshed_at > now() - make_interval(secs => :early_window) THEN early_renewals + 1
         ELSE 1 END
"""

# Only the version is checked. If another replica took the lease over meanwhile, or was even
# refused, this answer of Ignition's is still newer than anything that replica knows.
STORE_REFRESHED = text(f"""
    WITH changed AS (
        UPDATE grants SET status = 'connected', access_token = :access_token,
            early_renewals = {_EARLY_RENEWALS},
            refresh_token = :refresh_token, token_type = :token_type, scope = :scope,
            key_fingerprint = :key_fingerprint, fingerprinted = :fingerprinted,
            {AGE}, refreshed_at = now(),
            version = version + 1, lease_owner = NULL, lease_until = NULL,
            refresh_started_at = NULL, failures = :failures, last_error = :last_error,
            refresh_token_expires_at = {_REFRESH_TOKEN_EXPIRES_AT},
            next_refresh_at = {_WHEN_DUE}
        WHERE tenant_id = :tenant AND version = :version AND {LOCK_BRIEFLY}
        RETURNING {RETURNED}, status
    ), audited AS ({AUDIT_CHANGED})
    SELECT version, expires_at, connected_at, issued_at, {NOTIFY_CHANGED} FROM changed
""")  # noqa: S608  # constants of this package alone

STORE_CONNECTED = text(f"""
    WITH changed AS (
        INSERT INTO grants (tenant_id, status, access_token, refresh_token, token_type, scope,
            key_fingerprint, fingerprinted, empty_refresh_token, refresh_token_expires_at,
            issued_at, expires_at, connected_at, used_at, version, next_refresh_at)
        VALUES (:tenant, 'connected', :access_token, :refresh_token, :token_type, :scope,
            :key_fingerprint, :fingerprinted, :empty_refresh_token,
            now() + make_interval(secs => :refresh_left),
            now() - make_interval(secs => :age), now() + make_interval(secs => :left),
            now(), now(), 1, now() + make_interval(secs => :renew_in))
        ON CONFLICT (tenant_id) DO UPDATE SET status = 'connected',
            access_token = excluded.access_token, refresh_token = excluded.refresh_token,
            token_type = excluded.token_type, scope = excluded.scope,
            key_fingerprint = excluded.key_fingerprint, fingerprinted = excluded.fingerprinted,
            empty_refresh_token = excluded.empty_refresh_token,
            refresh_token_expires_at = excluded.refresh_token_expires_at,
            issued_at = excluded.issued_at, expires_at = excluded.expires_at,
            connected_at = now(), used_at = now(), refreshed_at = NULL,
            version = grants.version + 1, lease_owner = NULL, lease_until = NULL,
            refresh_started_at = NULL, next_refresh_at = excluded.next_refresh_at,
            failures = 0, last_error = NULL, early_renewals = 0
        RETURNING {RETURNED}, status
    ), audited AS ({AUDIT_CHANGED})
    SELECT version, expires_at, connected_at, issued_at, {NOTIFY_CHANGED} FROM changed
""")  # noqa: S608

FIND_STORED = text("""
    SELECT version, expires_at, connected_at, issued_at FROM grants
    WHERE tenant_id = :tenant AND version = :version AND access_token = :access_token
""")


async def store_refreshed(
    connection: Connection,
    lease: Lease,
    sealed: SealedTokens,
    schedule: Schedule,
    event: AuditEvent,
    *,
    age_seconds: float,
    error: str | None = None,
) -> Stored | None:
    """Stores renewed tokens, ends the lease, and records ``event``.

    ``age_seconds``: the time since the request for these tokens was sent. ``error`` is noted in
    the row and counted as a failure although the tokens were stored.

    Returns None if the row's version is no longer the lease's.
    """
    parameters = {
        "version": lease.version,
        "failures": 0 if error is None else lease.failures + 1,
        "last_error": error,
        "is_early": lease.is_early,
        "early_window": EARLY_RENEWAL_WINDOW_SECONDS,
        "lifetime": sealed.lifetime_seconds,
        "keepalive": schedule.keepalive_seconds,
        "rotated": sealed.is_rotated,
        "renew_refresh_token_in": left(schedule.before_lapse_seconds, age_seconds),
        **sealed_parameters(lease.tenant, sealed, schedule, age_seconds),
        **audit_parameters(event),
    }
    row = (await connection.execute(STORE_REFRESHED, parameters)).one_or_none()
    return None if row is None else Stored.of(row)


async def store_connected(
    connection: Connection,
    tenant: str,
    sealed: SealedTokens,
    schedule: Schedule,
    event: AuditEvent,
    *,
    age_seconds: float,
) -> Stored:
    """Stores the tokens of a code exchange, whatever the row held before, and records ``event``.

    ``age_seconds``: the time since the request for these tokens was sent.
    """
    parameters = {
        **sealed_parameters(tenant, sealed, schedule, age_seconds),
        **audit_parameters(event),
        **first_due(sealed, schedule, age_seconds),
    }
    row = (await connection.execute(STORE_CONNECTED, parameters)).one()
    return Stored.of(row)


async def find_stored(connection: Connection, lease: Lease, sealed: SealedTokens) -> Stored | None:
    """What `store_refreshed` committed if its connection broke before it could say so; None if it
    was not committed."""
    parameters = {
        "tenant": lease.tenant,
        "version": lease.version + 1,
        "access_token": sealed.access_token,
    }
    row = (await connection.execute(FIND_STORED, parameters)).one_or_none()
    return None if row is None else Stored.of(row)
