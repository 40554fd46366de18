"""Grants: named transitions, each one statement, none that leaves a stale field behind.

``version`` counts the tokens that a tenant has had. Whatever changes them raises it, so that a
writer who knows an older version writes nothing. ``refresh_started_at`` outlives a lease that was
not given back: it then says that the refresh token went out and no answer was stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog
from sqlalchemy import TextClause, text

from ignition_broker.cipher import Cipher, CipherError, Misplaced, Unreadable
from ignition_broker.model import (
    LONG_AGO,
    AuditEvent,
    Grant,
    GrantStatus,
    IssuedToken,
    Lease,
    SealedLease,
)
from ignition_broker.oauth.tokens import AccessToken, RefreshToken
from ignition_broker.storage.audit import append, audit_parameters, move_event
from ignition_broker.storage.connection import LOCK_BRIEFLY, Connection, Row
from ignition_broker.storage.key_notes import ciphertext_end
from ignition_broker.storage.renewability import IS_RENEWABLE

log = structlog.get_logger(__name__)

STORE_HEAD_START_SECONDS = 3.0
"""After Postgres has started, how long those who hold Ignition's answers may store them before an
abandoned refresh token is tried again."""

UNREADABLE_PAUSE_SECONDS = 3600.0

EARLY_RENEWAL_WINDOW_SECONDS = 120.0
"""Early renewals of one grant that are at most so far apart are counted together."""

USE_WINDOW_LIFETIMES = 3
"""A grant is in use when it was asked for within so many lifetimes of its tokens."""

_COLUMNS = f"""
    tenant_id, status, version, access_token, refresh_token, token_type, scope, expires_at,
    failures, last_error, early_renewals, {IS_RENEWABLE} AS is_renewable,
    extract(epoch FROM now() - refreshed_at)::float8 AS refreshed_seconds_ago,
    extract(epoch FROM expires_at - issued_at)::float8 AS lifetime_seconds,
    extract(epoch FROM expires_at - now())::float8 AS seconds_left,
    extract(epoch FROM now() - issued_at)::float8 AS issued_seconds_ago,
    coalesce(lease_until > now(), false) AS lease_is_held,
    refresh_started_at IS NOT NULL AND coalesce(lease_until <= now(), true) AS is_uncertain,
    greatest(0, extract(epoch FROM next_refresh_at - now()))::float8 AS retry_in_seconds
"""

READ = text(f"""
    SELECT tenants.id AS known, grant_row.* FROM tenants
    LEFT JOIN (SELECT {_COLUMNS} FROM grants) AS grant_row ON grant_row.tenant_id = tenants.id
    WHERE tenants.id = :tenant
""")  # noqa: S608  # constants of this module alone

_LEASE_IS_FREE = f"""
    (lease_until IS NULL OR lease_until < now())
    AND (refresh_started_at IS NULL
         OR pg_postmaster_start_time() < now() - interval '{STORE_HEAD_START_SECONDS} seconds')
"""

_CLAIMED = """
    RETURNING grants.tenant_id, grants.version, grants.lease_owner, grants.refresh_token,
        grants.scope, grants.failures, before.refresh_started_at IS NOT NULL AS was_uncertain,
        extract(epoch FROM grants.expires_at - now())::float8 AS seconds_left,
        grants.connected_at, extract(epoch FROM now() - grants.issued_at)::float8
            AS issued_seconds_ago
"""

# Whoever had this lease was killed, or stopped for longer than it: nobody knows what Ignition did.
_ABANDONED = """
    INSERT INTO audit_events (tenant_id, actor, action, outcome, detail)
    SELECT tenant_id, 'broker', 'refresh', 'answer_lost', jsonb_build_object(
        'version', version, 'reason', 'the lease of ' || lease_owner || ' ran out',
        'access_token_is_live', expires_at > now())
    FROM before WHERE lease_owner IS NOT NULL
"""

_BEFORE_CLAIM = "tenant_id, version, lease_owner, refresh_started_at, expires_at"

# Whoever finds the row locked tries again later, and holds no connection until then.
CLAIM = text(f"""
    WITH before AS (
        SELECT {_BEFORE_CLAIM} FROM grants
        WHERE tenant_id = :tenant AND version = :version AND status = 'connected'
          AND {IS_RENEWABLE} AND {_LEASE_IS_FREE}
        FOR UPDATE SKIP LOCKED
    ), audited AS ({_ABANDONED})
    UPDATE grants SET lease_owner = :owner, refresh_started_at = now(),
        lease_until = now() + make_interval(secs => :lease)
    FROM before WHERE grants.tenant_id = before.tenant_id {_CLAIMED}
""")  # noqa: S608

CLAIM_DUE = text(f"""
    WITH before AS (
        SELECT {_BEFORE_CLAIM} FROM grants
        WHERE next_refresh_at < now() AND status = 'connected' AND {IS_RENEWABLE}
          AND {_LEASE_IS_FREE} AND tenant_id <> ALL(:besides)
          AND (refresh_started_at IS NULL OR expires_at < now())
        ORDER BY next_refresh_at LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ), audited AS ({_ABANDONED})
    UPDATE grants SET lease_owner = :owner, refresh_started_at = now(),
        lease_until = now() + make_interval(secs => :lease)
    FROM before WHERE grants.tenant_id = before.tenant_id {_CLAIMED}
""")  # noqa: S608

_AUDIT = """
    INSERT INTO audit_events (tenant_id, actor, action, outcome, request_id, detail)
    SELECT tenant_id, :actor, :action, :outcome, :request_id, CAST(:detail AS jsonb) FROM changed
"""

_NOTIFY = "pg_notify('grants', concat_ws(' ', tenant_id, version, status))"

# NULL where the refresh token has no known end, or where its end is fixed: that moved by less than
# half of the time that has passed since the last answer, so that renewing early gains nothing.
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

AGE = """
    issued_at = now() - make_interval(secs => :age),
    expires_at = now() + make_interval(secs => :left)
"""

RETURNED = "grants.tenant_id, grants.version, expires_at, connected_at, issued_at"

# Early renewals that follow one another closely add up; any other begins the count anew.
_EARLY_RENEWALS = """
    CASE WHEN NOT :is_early THEN 0
         WHEN refreshed_at > now() - make_interval(secs => :early_window) THEN early_renewals + 1
         ELSE 1 END
"""

# The version alone decides. A lease taken over since does not matter, nor a refusal that the
# other one met: Ignition's fresh answer is the newest that anybody knows.
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
    ), audited AS ({_AUDIT})
    SELECT version, expires_at, connected_at, issued_at, {_NOTIFY} FROM changed
""")  # noqa: S608

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
    ), audited AS ({_AUDIT})
    SELECT version, expires_at, connected_at, issued_at, {_NOTIFY} FROM changed
""")  # noqa: S608

FIND_STORED = text("""
    SELECT version, expires_at, connected_at, issued_at FROM grants
    WHERE tenant_id = :tenant AND version = :version AND access_token = :access_token
""")

RECORD_REFUSAL = text(f"""
    WITH changed AS (
        UPDATE grants SET status = 'reauthorization_required', lease_owner = NULL,
            lease_until = NULL, refresh_started_at = NULL, next_refresh_at = NULL,
            last_error = :error
        WHERE tenant_id = :tenant AND version = :version AND lease_owner = :owner
          AND status = 'connected' AND {LOCK_BRIEFLY}
        RETURNING tenant_id, version, status
    ), audited AS ({_AUDIT})
    SELECT version, {_NOTIFY} FROM changed
""")  # noqa: S608

# Also after it ran out, as long as nobody has claimed it anew.
EXTEND = text(f"""
    UPDATE grants SET lease_until = now() + make_interval(secs => :lease)
    WHERE tenant_id = :tenant AND version = :version AND lease_owner = :owner AND {LOCK_BRIEFLY}
    RETURNING version
""")  # noqa: S608

# The refresh token was not used: what was known of it before this try is still all that is known.
RECORD_NOT_USED = text(f"""
    WITH changed AS (
        UPDATE grants SET lease_owner = NULL, lease_until = NULL,
            refresh_started_at = CASE WHEN :was_uncertain THEN refresh_started_at END,
            failures = failures + 1, last_error = :error,
            next_refresh_at = now() + make_interval(secs => :retry_in)
        WHERE tenant_id = :tenant AND version = :version AND lease_owner = :owner
          AND {LOCK_BRIEFLY}
        RETURNING tenant_id, version, status
    ), audited AS ({_AUDIT})
    SELECT version, {_NOTIFY} FROM changed
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
    ), audited AS ({_AUDIT})
    SELECT version, {_NOTIFY} FROM changed
""")  # noqa: S608

GIVE_BACK = text(f"""
    UPDATE grants SET lease_owner = NULL, lease_until = NULL,
        refresh_started_at = CASE WHEN :was_uncertain THEN refresh_started_at END
    WHERE tenant_id = :tenant AND version = :version AND lease_owner = :owner
      AND {LOCK_BRIEFLY}
""")  # noqa: S608

SET_ASIDE = text(f"""
    UPDATE grants SET lease_owner = NULL, lease_until = NULL,
        refresh_started_at = CASE WHEN :was_uncertain THEN refresh_started_at END,
        next_refresh_at = now() + make_interval(secs => :retry_in)
    WHERE tenant_id = :tenant AND version = :version AND lease_owner = :owner
      AND {LOCK_BRIEFLY}
""")  # noqa: S608

DISCONNECT = text(f"""
    WITH before AS (
        SELECT tenant_id, refresh_token, access_token, expires_at > now() AS is_live
        FROM grants WHERE tenant_id = :tenant FOR UPDATE
    ), changed AS (
        UPDATE grants SET status = 'disconnected', access_token = NULL, refresh_token = NULL,
            token_type = NULL, scope = NULL, expires_at = NULL, issued_at = NULL,
            key_fingerprint = NULL, fingerprinted = NULL, empty_refresh_token = NULL,
            refresh_token_expires_at = NULL,
            version = version + 1, lease_owner = NULL, lease_until = NULL,
            refresh_started_at = NULL, next_refresh_at = NULL, failures = 0, last_error = NULL
        FROM before WHERE grants.tenant_id = before.tenant_id
        RETURNING grants.tenant_id, version, status
    ), audited AS ({_AUDIT})
    SELECT before.refresh_token, before.access_token, before.is_live,
        {_NOTIFY.replace("tenant_id", "changed.tenant_id")}
    FROM changed JOIN before ON true
""")  # noqa: S608

STATUS = text("SELECT status FROM grants WHERE tenant_id = :tenant")

# An idle grant's next renewal lies a keep-alive away; one that is used again is renewed ahead.
# Rows that somebody else has locked are passed over and named, to be noted next time.
NOTE_USE = text(f"""
    WITH free AS (
        SELECT tenant_id FROM grants WHERE tenant_id = ANY(:tenants) AND status = 'connected'
        FOR NO KEY UPDATE SKIP LOCKED
    ), noted AS (
        UPDATE grants SET used_at = now(), next_refresh_at = CASE
            WHEN failures > 0 OR refresh_started_at IS NOT NULL OR NOT {IS_RENEWABLE}
            THEN next_refresh_at
            ELSE least(next_refresh_at, expires_at - least(
                make_interval(secs => :lead), (expires_at - issued_at) / 2))
        END
        FROM free WHERE grants.tenant_id = free.tenant_id
    )
    SELECT tenant_id FROM grants
    WHERE tenant_id = ANY(:tenants) AND status = 'connected'
      AND tenant_id NOT IN (SELECT tenant_id FROM free)
""")  # noqa: S608


@dataclass(frozen=True, slots=True)
class SealedTokens:
    """What goes into the row; the same bytes at every try, so that a store can be recognized.

    ``lifetime_seconds`` and ``refresh_lifetime_seconds`` (None: no known end) count from the
    request that brought the tokens; ``key_fingerprint``: of the key that encrypted them;
    ``has_refresh_token`` is False where the refresh token is an empty text, ``is_rotated`` where
    the old one stays in force.
    """

    access_token: bytes
    refresh_token: bytes
    token_type: str
    scope: str
    lifetime_seconds: float
    key_fingerprint: str
    has_refresh_token: bool = True
    is_rotated: bool = True
    refresh_lifetime_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the next renewal falls due, counted from the request that brought the tokens.

    ``before_lapse_seconds``: at the latest, lest the refresh token lapse; None where it has no
    known end.
    """

    renew_after_seconds: float
    keepalive_seconds: float
    before_lapse_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """What a statement left in the row. ``connected_at`` and ``issued_at``, when the tokens were
    asked for, are on the database's clock."""

    version: int
    expires_at: datetime
    connected_at: datetime
    issued_at: datetime

    @classmethod
    def of(cls, row: Row) -> Stored:
        return cls(row.version, row.expires_at, row.connected_at, row.issued_at)


async def read(
    connection: Connection, cipher: Cipher, tenant: str, *, asked_at: float
) -> Grant | None:
    """The grant; None for a tenant nobody knows, status disconnected for one never connected.

    ``asked_at``: now, on the monotonic clock, from which the token's end is counted.
    """
    row = (await connection.execute(READ, {"tenant": tenant})).one_or_none()
    return None if row is None else _grant(cipher, row, tenant, asked_at)


async def claim(
    connection: Connection,
    cipher: Cipher,
    *,
    tenant: str,
    version: int,
    owner: str,
    lease_seconds: float,
    asked_at: float,
    use_before: float,
    is_early: bool,
) -> Lease | None:
    """The lease on this version's refresh token; None while somebody else has it.

    ``is_early``: a caller forces the renewal, well ahead of the token's end.
    """
    parameters = {"tenant": tenant, "version": version, "owner": owner, "lease": lease_seconds}
    row = (await connection.execute(CLAIM, parameters)).one_or_none()
    if row is None:
        return None
    lease = opened(cipher, _sealed_lease(row, asked_at, use_before))
    return replace(lease, is_early=is_early)


async def claim_due(
    connection: Connection,
    *,
    owner: str,
    lease_seconds: float,
    asked_at: float,
    use_before: float,
    limit: int,
    besides: Sequence[str] = (),
) -> list[SealedLease]:
    """Leases on at most ``limit`` grants whose renewal is due, the longest due first; none on
    those of the tenants ``besides``.

    Each is to be `opened` in its turn: a good many at once would hold up whoever else is served.
    """
    parameters = {
        "owner": owner,
        "lease": lease_seconds,
        "limit": limit,
        "besides": list(besides),
    }
    rows = await connection.execute(CLAIM_DUE, parameters)
    return [_sealed_lease(row, asked_at, use_before) for row in rows]


async def extend(connection: Connection, lease: Lease, *, lease_seconds: float) -> bool:
    """The lease lasts for ``lease_seconds`` from now. Whether it is still the holder's: not where
    somebody else has it, or the version has moved on."""
    parameters = {
        "tenant": lease.tenant,
        "version": lease.version,
        "owner": lease.owner,
        "lease": lease_seconds,
    }
    return (await connection.execute(EXTEND, parameters)).one_or_none() is not None


def opened(cipher: Cipher, lease: SealedLease) -> Lease:
    """Raises `CipherError` where none of the keys opens it, or it is another row's."""
    token = cipher.decrypt(lease.tenant, "refresh_token", lease.refresh_token)
    return Lease(
        tenant=lease.tenant,
        version=lease.version,
        owner=lease.owner,
        refresh_token=RefreshToken(token),
        scope=lease.scope,
        use_before=lease.use_before,
        was_uncertain=lease.was_uncertain,
        failures=lease.failures,
        access_dies_at=lease.access_dies_at,
        connected_at=lease.connected_at,
        issued_since=lease.issued_since,
    )


async def set_aside(connection: Connection, lease: SealedLease, error: CipherError) -> None:
    """Nobody can use this row until its key is back: looked at once an hour, not at every lease."""
    parameters = {
        "tenant": lease.tenant,
        "version": lease.version,
        "owner": lease.owner,
        "was_uncertain": lease.was_uncertain,
        "retry_in": UNREADABLE_PAUSE_SECONDS,
    }
    await connection.execute(SET_ASIDE, parameters)
    if isinstance(error, Misplaced):
        await append(connection, move_event(error))


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
    """None where the row has moved on from the lease's version.

    ``age_seconds``: since the request that brought the tokens.
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
        "renew_refresh_token_in": _left(schedule.before_lapse_seconds, age_seconds),
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
    parameters = {
        **sealed_parameters(tenant, sealed, schedule, age_seconds),
        **audit_parameters(event),
        **first_due(sealed, schedule, age_seconds),
    }
    row = (await connection.execute(STORE_CONNECTED, parameters)).one()
    return Stored.of(row)


async def find_stored(connection: Connection, lease: Lease, sealed: SealedTokens) -> Stored | None:
    """A store whose answer was lost and that had in fact been committed."""
    parameters = {
        "tenant": lease.tenant,
        "version": lease.version + 1,
        "access_token": sealed.access_token,
    }
    row = (await connection.execute(FIND_STORED, parameters)).one_or_none()
    return None if row is None else Stored.of(row)


async def record_refusal(
    connection: Connection, lease: Lease, error: str, event: AuditEvent
) -> bool:
    """Refused for good. Whether it was recorded: not where the version or the lease moved on."""
    return await _recorded(connection, RECORD_REFUSAL, lease, event, error=error)


async def record_not_used(
    connection: Connection,
    lease: Lease,
    error: str,
    retry_in_seconds: float,
    event: AuditEvent,
) -> bool:
    """The refresh token is as good as before; not to be tried again before ``retry_in_seconds``."""
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
    """The refresh token may be spent. The first time it is next tried when its access token has
    ended, after that by back-off."""
    return await _recorded(
        connection,
        RECORD_ANSWER_LOST,
        lease,
        event,
        error=error,
        retry_in=retry_in_seconds,
        was_uncertain=lease.was_uncertain,
    )


async def give_back(connection: Connection, lease: Lease | SealedLease) -> None:
    """The lease was not made use of."""
    parameters = {
        "tenant": lease.tenant,
        "version": lease.version,
        "owner": lease.owner,
        "was_uncertain": lease.was_uncertain,
    }
    await connection.execute(GIVE_BACK, parameters)


async def disconnect(
    connection: Connection, cipher: Cipher, tenant: str, event: AuditEvent
) -> RefreshToken | AccessToken | None:
    """Forgets the tokens; returns what is left to be revoked: the refresh token, or where there is
    none, the access token if it lives.

    Not where its key is lost: to forget it is then the way to be rid of it.
    """
    row = (
        await connection.execute(DISCONNECT, {"tenant": tenant, **audit_parameters(event)})
    ).one_or_none()
    if row is None or row.refresh_token is None:
        return None
    try:
        refresh_token = cipher.decrypt(tenant, "refresh_token", row.refresh_token)
        if refresh_token:
            return RefreshToken(refresh_token)
        if not row.is_live:
            return None
        return AccessToken(cipher.decrypt(tenant, "access_token", row.access_token))
    except Unreadable as error:
        log.warning("grant_unreadable", tenant=tenant, reason=str(error))
        return None


async def is_disconnected(connection: Connection, tenant: str) -> bool:
    status: str | None = await connection.scalar(STATUS, {"tenant": tenant})
    return status == GrantStatus.DISCONNECTED


async def note_use(
    connection: Connection, tenants: Sequence[str], *, lead_seconds: float
) -> list[str]:
    """Returns the tenants whose rows somebody else has locked, of which nothing was noted."""
    parameters = {"tenants": list(tenants), "lead": lead_seconds}
    return [row.tenant_id for row in await connection.execute(NOTE_USE, parameters)]


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


def sealed_parameters(
    tenant: str, sealed: SealedTokens, schedule: Schedule, age_seconds: float
) -> dict[str, object]:
    return {
        "tenant": tenant,
        "access_token": sealed.access_token,
        "refresh_token": sealed.refresh_token,
        "token_type": sealed.token_type,
        "scope": sealed.scope,
        "key_fingerprint": sealed.key_fingerprint,
        "fingerprinted": ciphertext_end(sealed.access_token),
        "age": age_seconds,
        "left": sealed.lifetime_seconds - age_seconds,
        "renew_in": _left(schedule.renew_after_seconds, age_seconds),
        "refresh_left": _left(sealed.refresh_lifetime_seconds, age_seconds),
    }


def first_due(sealed: SealedTokens, schedule: Schedule, age_seconds: float) -> dict[str, object]:
    """For tokens whose next renewal does not depend on what the row was before."""
    due_after = schedule.renew_after_seconds
    if schedule.before_lapse_seconds is not None:
        due_after = min(due_after, schedule.before_lapse_seconds)
    has_one = sealed.has_refresh_token
    return {
        "empty_refresh_token": None if has_one else ciphertext_end(sealed.refresh_token),
        "renew_in": _left(due_after, age_seconds) if has_one else None,
    }


def _left(seconds: float | None, age_seconds: float) -> float | None:
    return None if seconds is None else max(0.0, seconds - age_seconds)


def _grant(cipher: Cipher, row: Row, tenant: str, asked_at: float) -> Grant:
    if row.status is None:
        return Grant(
            tenant=tenant,
            status=GrantStatus.DISCONNECTED,
            version=0,
            issued=None,
            lease_is_held=False,
            is_uncertain=False,
            retry_in_seconds=0.0,
            failures=0,
            last_error=None,
            early_renewals=0,
            refreshed_seconds_ago=None,
        )
    issued = None
    if row.access_token is not None:
        issued = IssuedToken(
            tenant=tenant,
            access_token=AccessToken(cipher.decrypt(tenant, "access_token", row.access_token)),
            token_type=row.token_type,
            scope=row.scope,
            expires_at=row.expires_at,
            lifetime_seconds=row.lifetime_seconds,
            dies_at=asked_at + row.seconds_left,
            version=row.version,
            is_renewable=row.is_renewable,
        )
    return Grant(
        tenant=tenant,
        status=GrantStatus(row.status),
        version=row.version,
        issued=issued,
        lease_is_held=row.lease_is_held,
        is_uncertain=row.is_uncertain,
        retry_in_seconds=row.retry_in_seconds or 0.0,
        failures=row.failures,
        last_error=row.last_error,
        issued_since=LONG_AGO
        if row.issued_seconds_ago is None
        else asked_at - row.issued_seconds_ago,
        early_renewals=row.early_renewals,
        refreshed_seconds_ago=row.refreshed_seconds_ago,
        is_renewable=row.is_renewable,
    )


def _sealed_lease(row: Row, asked_at: float, use_before: float) -> SealedLease:
    return SealedLease(
        tenant=row.tenant_id,
        version=row.version,
        owner=row.lease_owner,
        refresh_token=row.refresh_token,
        scope=row.scope,
        use_before=use_before,
        was_uncertain=row.was_uncertain,
        failures=row.failures,
        access_dies_at=asked_at + row.seconds_left,
        connected_at=row.connected_at,
        issued_since=asked_at - row.issued_seconds_ago,
    )
