"""Leases: a row's mark that one process alone may use the refresh token.

A lease is claimed for one version of a grant, extended while Ignition is asked, and ended by what
is stored (`new_tokens`, `refresh_failures`) or by giving it back. A lease that ran out leaves
``refresh_started_at`` behind: whoever claims the grant next knows that an answer may be lost.

Over 250 lines: half of them are statements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import text

from ignition_broker.cipher import Cipher
from ignition_broker.grant_ids import DEFAULT_CLIENT
from ignition_broker.model import Lease, SealedLease
from ignition_broker.oauth.tokens import RefreshToken
from ignition_broker.storage.connection import LOCK_BRIEFLY, Connection, Row
from ignition_broker.storage.grant_columns import (
    CLIENT_DETAIL,
    IS_OF_DEFAULT_CLIENT,
    IS_OF_OTHER_CLIENT,
    OTHER_CLIENT,
    TENANT,
)
from ignition_broker.storage.renewability import IS_RENEWABLE

STORE_HEAD_START_SECONDS = 3.0
"""How long after a start of Postgres no abandoned refresh token is claimed: replicas that hold an
answer of Ignition's store it in that time."""

UNREADABLE_PAUSE_SECONDS = 3600.0
"""How long a grant that no key can decrypt is left alone by the background refresher."""

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

# The lease's last holder was killed or suspended: whether Ignition saw its request is unknown.
_ABANDONED = f"""
    INSERT INTO audit_events (tenant_id, actor, action, outcome, detail)
    SELECT {TENANT}, 'broker', 'refresh', 'answer_lost', jsonb_build_object(
        'version', version, 'reason', 'the lease of ' || lease_owner || ' ran out',
        'access_token_is_live', expires_at > now()) || {CLIENT_DETAIL}
    FROM before WHERE lease_owner IS NOT NULL
"""  # noqa: S608  # constants of this package alone

_BEFORE_CLAIM = "tenant_id, version, lease_owner, refresh_started_at, expires_at"

# A caller that finds the row locked tries again later, and holds no connection until then.
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
""")  # noqa: S608  # constants of this package alone

_CLAIM_DUE = f"""
    WITH before AS (
        SELECT {_BEFORE_CLAIM} FROM grants
        WHERE {{of_client}} AND next_refresh_at < now() AND status = 'connected' AND {IS_RENEWABLE}
          AND {_LEASE_IS_FREE} AND tenant_id <> ALL(:besides)
          AND (refresh_started_at IS NULL OR expires_at < now())
        ORDER BY next_refresh_at LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ), audited AS ({{abandoned}})
    UPDATE grants SET lease_owner = :owner, refresh_started_at = now(),
        lease_until = now() + make_interval(secs => :lease)
    FROM before WHERE grants.tenant_id = before.tenant_id {_CLAIMED}
"""  # noqa: S608

# A replica claims for the clients that its settings name: a refresh token that were sent to another
# client's Ignition would be refused there, and the grant taken for ended.
CLAIM_DUE = text(_CLAIM_DUE.format(of_client=IS_OF_DEFAULT_CLIENT, abandoned=_ABANDONED))

CLAIM_DUE_OF_OTHER = text(
    _CLAIM_DUE.format(
        of_client=f"{IS_OF_OTHER_CLIENT} AND {OTHER_CLIENT} = :client", abandoned=_ABANDONED
    )
)

# A lease that has run out can be extended too, as long as nobody has claimed it since.
EXTEND = text(f"""
    UPDATE grants SET lease_until = now() + make_interval(secs => :lease)
    WHERE tenant_id = :tenant AND version = :version AND lease_owner = :owner AND {LOCK_BRIEFLY}
    RETURNING version
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


async def claim(
    connection: Connection,
    *,
    tenant: str,
    version: int,
    owner: str,
    lease_seconds: float,
    asked_at: float,
    use_before: float,
    is_early: bool,
) -> SealedLease | None:
    """Claims the right to use the refresh token of one version of a grant.

    ``owner`` must be a new name for each claim. ``lease_seconds`` counts on Postgres' clock;
    ``asked_at`` and ``use_before`` are moments of this process's monotonic clock: now, and the
    last one at which the refresh token may be sent. ``is_early``: a caller forces the renewal well
    before the token expires.

    Returns None if somebody else holds the lease or the version is no longer the current one. The
    refresh token comes back encrypted, for `opened`.
    """
    parameters = {"tenant": tenant, "version": version, "owner": owner, "lease": lease_seconds}
    row = (await connection.execute(CLAIM, parameters)).one_or_none()
    if row is None:
        return None
    return replace(_sealed_lease(row, asked_at, use_before), is_early=is_early)


async def claim_due(
    connection: Connection,
    *,
    owner: str,
    lease_seconds: float,
    asked_at: float,
    use_before: float,
    limit: int,
    besides: Sequence[str] = (),
    client: str = DEFAULT_CLIENT,
) -> list[SealedLease]:
    """Claims at most ``limit`` grants of an OAuth client whose renewal is due, the longest overdue
    first.

    Skips the tenants in ``besides``. The other arguments are as for `claim`. The refresh tokens
    come back encrypted: the caller decrypts each with `opened` when its turn comes, because
    decrypting a whole batch at once would delay every other request of this process.
    """
    parameters = {
        "owner": owner,
        "lease": lease_seconds,
        "limit": limit,
        "besides": list(besides),
    }
    if client == DEFAULT_CLIENT:
        rows = await connection.execute(CLAIM_DUE, parameters)
    else:
        rows = await connection.execute(CLAIM_DUE_OF_OTHER, {**parameters, "client": client})
    return [_sealed_lease(row, asked_at, use_before) for row in rows]


def opened(cipher: Cipher, lease: SealedLease) -> Lease:
    """The lease with its refresh token decrypted.

    Raises `CipherError` if no key decrypts it, or if it was encrypted for another row.
    """
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
        is_early=lease.is_early,
    )


async def extend(connection: Connection, lease: Lease, *, lease_seconds: float) -> bool:
    """Makes the lease last for ``lease_seconds`` from now.

    Returns False if somebody else holds the lease by now, or the version has changed.
    """
    parameters = {
        "tenant": lease.tenant,
        "version": lease.version,
        "owner": lease.owner,
        "lease": lease_seconds,
    }
    return (await connection.execute(EXTEND, parameters)).one_or_none() is not None


async def give_back(connection: Connection, lease: Lease | SealedLease) -> None:
    """Ends a lease whose refresh token was not sent."""
    parameters = {
        "tenant": lease.tenant,
        "version": lease.version,
        "owner": lease.owner,
        "was_uncertain": lease.was_uncertain,
    }
    await connection.execute(GIVE_BACK, parameters)


async def set_aside(connection: Connection, lease: SealedLease) -> None:
    """Ends the lease of a grant that no key can decrypt, and postpones its renewal by an hour.

    An operator has to bring the key back first; to claim the grant at every turn would be useless.
    """
    parameters = {
        "tenant": lease.tenant,
        "version": lease.version,
        "owner": lease.owner,
        "was_uncertain": lease.was_uncertain,
        "retry_in": UNREADABLE_PAUSE_SECONDS,
    }
    await connection.execute(SET_ASIDE, parameters)


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
