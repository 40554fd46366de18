"""Repairs the rows of a database that went back in time.

After a failover to a standby that lost the last seconds, or from a restored dump, rows are older
than what this process has seen. It can store again what it had stored itself, unless something
newer was stored since. Statements over many tenants only read; each write is to one row, and with
``SKIP LOCKED`` waits for nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from ignition_broker.model import AuditEvent, Grant, GrantStatus
from ignition_broker.storage.audit import audit_parameters
from ignition_broker.storage.change_notices import NOTIFY_CHANGED
from ignition_broker.storage.connection import LOCK_BRIEFLY, Connection
from ignition_broker.storage.grant_columns import TENANT
from ignition_broker.storage.sealed_tokens import (
    AGE,
    RETURNED,
    Schedule,
    SealedTokens,
    Stored,
    first_due,
    sealed_parameters,
)

STATES = text("""
    SELECT tenant_id, version, status,
        extract(epoch FROM now() - issued_at)::float8 AS issued_seconds_ago
    FROM grants WHERE tenant_id = ANY(:tenants)
""")

_AUDIT = f"""
    INSERT INTO audit_events (tenant_id, actor, action, outcome, request_id, detail)
    SELECT {TENANT}, :actor, :action, :outcome, :request_id,
        CAST(:detail AS jsonb) || jsonb_build_object('found_version', found)
    FROM changed
"""  # noqa: S608  # constants of this package alone

_COLUMNS = """
    tenant_id, status, access_token, refresh_token, token_type, scope, key_fingerprint,
    fingerprinted, empty_refresh_token, refresh_token_expires_at, issued_at, expires_at,
    connected_at, refreshed_at, used_at, version, last_error, next_refresh_at
"""

# A newer connect replaces an older one, unless the tenant was disconnected after it: a disconnect
# counts, whatever a replica remembers. Only tenants that have a row in `tenants` are stored, so
# that nothing is put into a database that was emptied on purpose. That row is locked before the
# grant is inserted, in the order in which a connect takes the two: inserting changes it
# (migrations/versions/0020_expand_disconnected.py).
_RESTORE = """
    WITH behind AS (
        SELECT tenant_id, version AS found FROM grants
        WHERE tenant_id = :tenant AND version < :version AND {briefly}
          AND (CAST(:issued_at AS timestamptz) IS NULL OR issued_at IS NULL
               OR issued_at < :issued_at)
          AND (connected_at = :connected_at AND status <> 'disconnected'
               OR connected_at < :connected_at AND NOT EXISTS (
                   SELECT FROM audit_events
                   WHERE audit_events.tenant_id = split_part(:tenant, '@', 1)
                     AND coalesce(detail->>'client', '') = split_part(:tenant, '@', 2)
                     AND (action = 'disconnect' OR outcome = 'disconnected_again')
                     AND at > :connected_at))
        FOR UPDATE {lock}
    ), updated AS (
        UPDATE grants SET status = 'connected', access_token = :access_token,
            refresh_token = :refresh_token, token_type = :token_type, scope = :scope,
            key_fingerprint = :key_fingerprint, fingerprinted = :fingerprinted,
            empty_refresh_token = :empty_refresh_token,
            refresh_token_expires_at = coalesce(
                now() + make_interval(secs => :refresh_left),
                CASE WHEN NOT :rotated THEN refresh_token_expires_at END),
            {age}, connected_at = :connected_at,
            refreshed_at = now() - make_interval(secs => :age), early_renewals = 0,
            version = :version, lease_owner = NULL, lease_until = NULL,
            refresh_started_at = NULL, failures = 0,
            last_error = 'the database went back to version ' || behind.found
                || '; version ' || CAST(:version AS bigint) || ' was stored again',
            next_refresh_at = now() + make_interval(secs => :renew_in)
        FROM behind WHERE grants.tenant_id = behind.tenant_id
        RETURNING {returned}, grants.status, behind.found
    ), inserted AS (
        INSERT INTO grants ({columns})
        SELECT id, 'connected', :access_token, :refresh_token, :token_type, :scope,
            :key_fingerprint, :fingerprinted, :empty_refresh_token,
            now() + make_interval(secs => :refresh_left), now() - make_interval(secs => :age),
            now() + make_interval(secs => :left), :connected_at,
            now() - make_interval(secs => :age), now(), :version,
            'the database went back to before this tenant was connected; version '
                || CAST(:version AS bigint) || ' was stored again',
            now() + make_interval(secs => :renew_in)
        FROM tenants WHERE id = :tenant AND {briefly}
          AND NOT EXISTS (SELECT FROM grants WHERE tenant_id = :tenant)
        FOR NO KEY UPDATE {lock}
        ON CONFLICT DO NOTHING
        RETURNING {returned}, grants.status, CAST(0 AS bigint) AS found
    ), changed AS (
        SELECT * FROM updated UNION ALL SELECT * FROM inserted
    ), audited AS ({audit})
    SELECT version, expires_at, connected_at, issued_at, found, {notify} FROM changed
"""

_PARTS = {
    "age": AGE,
    "returned": RETURNED,
    "columns": _COLUMNS,
    "audit": _AUDIT,
    "notify": NOTIFY_CHANGED,
}

# RESTORE is for an answer of Ignition's that must be stored, OFFER for one that is remembered and
# can be offered again later.
RESTORE = text(_RESTORE.format(briefly=LOCK_BRIEFLY, lock="", **_PARTS))
OFFER = text(_RESTORE.format(briefly="true", lock="SKIP LOCKED", **_PARTS))

# As after a lost answer: the refresh token may be spent, so the next try waits until the access
# token has expired. Of several replicas that know better, the first one marks the row.
MARK_BEHIND = text(f"""
    WITH behind AS (
        SELECT tenant_id FROM grants
        WHERE tenant_id = :tenant AND version = :version AND status = 'connected'
          AND (lease_until IS NULL OR lease_until < now())
          AND (refresh_started_at IS NULL OR last_error IS NULL
               OR last_error NOT LIKE 'the database went back:%')
        FOR UPDATE SKIP LOCKED
    ), changed AS (
        UPDATE grants SET lease_owner = NULL, lease_until = NULL,
            refresh_started_at = coalesce(refresh_started_at, now()), last_error = :error,
            next_refresh_at = greatest(expires_at, now() + make_interval(secs => :wait))
        FROM behind WHERE grants.tenant_id = behind.tenant_id
        RETURNING grants.tenant_id, version, status, version AS found
    ), audited AS ({_AUDIT})
    SELECT version, {NOTIFY_CHANGED} FROM changed
""")  # noqa: S608  # constants of this package alone

HOLD = text("""
    SELECT tenant_id FROM grants
    WHERE tenant_id = :tenant AND version = :version AND status <> 'disconnected'
    FOR UPDATE SKIP LOCKED
""")


@dataclass(frozen=True, slots=True)
class RowState:
    """The version and status in a grant's row. ``issued_since``: when its tokens were requested, on
    this process's monotonic clock."""

    version: int
    status: GrantStatus
    issued_since: float

    @classmethod
    def of(cls, grant: Grant) -> RowState:
        return cls(grant.version, grant.status, grant.issued_since)


NO_ROW = RowState(0, GrantStatus.DISCONNECTED, float("-inf"))


@dataclass(frozen=True, slots=True)
class Restored:
    """What was stored again. ``found_version``: the row's version before that; 0: there was no
    row."""

    stored: Stored
    found_version: int


async def states(
    connection: Connection, tenants: Sequence[str], *, asked_at: float
) -> Mapping[str, RowState]:
    """The states of those tenants that have a row. ``asked_at``: now on the monotonic clock."""
    return {
        row.tenant_id: RowState(
            row.version,
            GrantStatus(row.status),
            float("-inf") if row.issued_seconds_ago is None else asked_at - row.issued_seconds_ago,
        )
        for row in await connection.execute(STATES, {"tenants": list(tenants)})
    }


async def restore(
    connection: Connection,
    tenant: str,
    sealed: SealedTokens,
    schedule: Schedule,
    event: AuditEvent,
    *,
    version: int,
    connected_at: datetime | None,
    age_seconds: float,
    issued_at: datetime | None,
) -> Restored | None:
    """Stores tokens as ``version`` if the row is behind; returns None if it is not.

    ``issued_at``: when these tokens were requested, on the database's clock; a row with younger
    tokens is left alone. None is for an answer that Ignition has just given, which is younger than
    any: only that waits for a locked row. ``age_seconds``: since the request for the tokens.
    """
    parameters = {
        "version": version,
        "connected_at": connected_at,
        "issued_at": issued_at,
        "rotated": sealed.is_rotated,
        **sealed_parameters(tenant, sealed, schedule, age_seconds),
        **first_due(sealed, schedule, age_seconds),
        **audit_parameters(event),
    }
    statement = RESTORE if issued_at is None else OFFER
    row = (await connection.execute(statement, parameters)).one_or_none()
    return None if row is None else Restored(Stored.of(row), row.found)


async def mark_behind(
    connection: Connection,
    tenant: str,
    event: AuditEvent,
    *,
    version: int,
    error: str,
    wait_seconds: float,
) -> bool:
    """Marks a row that holds ``version``, if a newer one is known to have existed.

    ``error`` begins with ``the database went back:``. The next renewal is in ``wait_seconds`` or
    when the access token expires, whichever is later. Returns False if the row has changed, is
    marked already, or is leased or locked.
    """
    parameters = {
        "version": version,
        "error": error,
        "wait": wait_seconds,
        **audit_parameters(event),
    }
    return (await connection.execute(MARK_BEHIND, parameters)).one_or_none() is not None


async def hold(connection: Connection, tenant: str, *, version: int) -> bool:
    """Locks a row until the transaction ends, if it holds ``version`` and is not disconnected.

    Returns False if it does not, or somebody else has locked it.
    """
    given = {"tenant": tenant, "version": version}
    return (await connection.execute(HOLD, given)).one_or_none() is not None
