"""Grants: read, disconnected, and marked as in use.

Each change of a grant is one statement of its own name that leaves no stale field behind. Those
that renew one are in `leases` (the right to use the refresh token), `new_tokens` and
`refresh_failures` (what came of using it).

``version`` counts the tokens that a tenant has had. Every change of the tokens raises it, so that
a writer that knows an older version changes nothing. ``refresh_started_at`` is set with a lease and
stays if the lease is not ended properly: a refresh token was then sent, and no answer was stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog
from sqlalchemy import text

from ignition_broker.cipher import Cipher, Unreadable
from ignition_broker.model import LONG_AGO, AuditEvent, Grant, GrantStatus, IssuedToken
from ignition_broker.oauth.tokens import AccessToken, RefreshToken
from ignition_broker.storage.audit import AUDIT_CHANGED, audit_parameters
from ignition_broker.storage.change_notices import NOTIFY_CHANGED
from ignition_broker.storage.connection import Connection, Row
from ignition_broker.storage.renewability import IS_RENEWABLE

log = structlog.get_logger(__name__)

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

# The inner SELECT hides how many tenants there are from the planner. Where it sees that, it plans
# anew for each number of them, which takes longer than the read.
READ = text(f"""
    SELECT tenants.id AS known, grant_row.* FROM tenants
    LEFT JOIN (SELECT {_COLUMNS} FROM grants) AS grant_row ON grant_row.tenant_id = tenants.id
    WHERE tenants.id = ANY(ARRAY(SELECT unnest(CAST(:tenants AS text[]))))
""")  # noqa: S608  # constants of this package alone

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
    ), audited AS ({AUDIT_CHANGED})
    SELECT before.refresh_token, before.access_token, before.is_live,
        {NOTIFY_CHANGED.replace("tenant_id", "changed.tenant_id")}
    FROM changed JOIN before ON true
""")  # noqa: S608

STATUS = text("SELECT status FROM grants WHERE tenant_id = :tenant")

# The next renewal of an idle grant may be a day away; once it is used again, it is renewed before
# its token expires. Locked rows are skipped and returned, for the caller to note them next time.
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


async def read(
    connection: Connection, cipher: Cipher, tenant: str, *, asked_at: float
) -> Grant | None:
    """The tenant's grant. One that was never connected has the status ``disconnected``.

    ``asked_at``: now on the monotonic clock, from which the token's remaining life is counted.
    Returns None for an unknown tenant. Raises `CipherError` if no key decrypts the access token.
    """
    row = (await read_rows(connection, [tenant])).get(tenant)
    return None if row is None else grant_of(cipher, row, tenant, asked_at)


async def read_rows(connection: Connection, tenants: Sequence[str]) -> Mapping[str, Row]:
    """The rows, for `grant_of`, of those tenants that are known."""
    return {row.known: row for row in await connection.execute(READ, {"tenants": tenants})}


async def disconnect(
    connection: Connection, cipher: Cipher, tenant: str, event: AuditEvent
) -> RefreshToken | AccessToken | None:
    """Deletes the tenant's tokens, and records ``event``.

    Returns what the caller has to revoke at Ignition: the refresh token or, if there is none, an
    access token that has not expired. Returns None if nothing is left to revoke, or if no key
    decrypts it: an admin must be able to disconnect a tenant whose key is lost.
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
    """Whether an admin disconnected the tenant; False for one that was never connected."""
    status: str | None = await connection.scalar(STATUS, {"tenant": tenant})
    return status == GrantStatus.DISCONNECTED


async def note_use(
    connection: Connection, tenants: Sequence[str], *, lead_seconds: float
) -> list[str]:
    """Notes that these tenants' grants are in use, and schedules their renewal ahead of expiry.

    ``lead_seconds``: how long before the token's expiry that is, at most half of its lifetime.
    Returns the tenants whose rows were locked, for which nothing was noted.
    """
    parameters = {"tenants": list(tenants), "lead": lead_seconds}
    return [row.tenant_id for row in await connection.execute(NOTE_USE, parameters)]


def grant_of(cipher: Cipher, row: Row, tenant: str, asked_at: float) -> Grant:
    """The grant in a tenant's row, as `read` has it."""
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
