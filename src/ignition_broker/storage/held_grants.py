"""Tokens of a reconnect that do not replace the tenant's grant yet, encrypted; one set a tenant.

Their account is being asked, or it is another one, which an admin has to confirm. Whoever changes
a row has locked its tenant (`tenants.lock`), but for `claim` and `replace`. ``next_try_at`` of a
row without an account is also a lease: its holder asks. If that replica is killed, another one
asks when that time has come.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import text

from ignition_broker.model import Account, Actor
from ignition_broker.storage.connection import Connection, Row
from ignition_broker.storage.sealed_tokens import SealedTokens

HELD_SECONDS = 7 * 86_400.0
"""For how long another account can be confirmed."""

HOLD = text("""
    INSERT INTO held_grants (tenant_id, state_hash, generation, access_token, refresh_token,
        key_fingerprint, token_type, scope, has_refresh_token, lifetime_seconds,
        refresh_lifetime_seconds, requested_at, actor, request_id, warning, next_try_at, expires_at)
    SELECT id, :state_hash, generation, :access_token, :refresh_token,
        :key_fingerprint, :token_type, :scope, :has_refresh_token, :lifetime,
        :refresh_lifetime, now() - make_interval(secs => :age), :actor, :request_id, :warning,
        now() + make_interval(secs => :lease), now() + make_interval(secs => :held_for)
    FROM tenants WHERE id = :tenant
    ON CONFLICT (tenant_id) DO UPDATE SET state_hash = excluded.state_hash,
        generation = excluded.generation, access_token = excluded.access_token,
        refresh_token = excluded.refresh_token, key_fingerprint = excluded.key_fingerprint,
        token_type = excluded.token_type, scope = excluded.scope,
        has_refresh_token = excluded.has_refresh_token,
        lifetime_seconds = excluded.lifetime_seconds,
        refresh_lifetime_seconds = excluded.refresh_lifetime_seconds,
        requested_at = excluded.requested_at, actor = excluded.actor,
        request_id = excluded.request_id, warning = excluded.warning, account_id = NULL,
        account_name = NULL, next_try_at = excluded.next_try_at, expires_at = excluded.expires_at
""")

_COLUMNS = """
    h.tenant_id, h.state_hash, h.access_token, h.refresh_token, h.key_fingerprint, h.token_type,
    h.scope, h.has_refresh_token, h.lifetime_seconds, h.refresh_lifetime_seconds, h.actor,
    h.request_id, h.warning, h.account_id, h.account_name, h.expires_at <= now() AS is_expired,
    extract(epoch FROM now() - h.requested_at)::float8 AS age_seconds
"""

READ = text(f"""
    SELECT {_COLUMNS} FROM held_grants h JOIN tenants t ON t.id = h.tenant_id
    WHERE h.tenant_id = :tenant AND h.generation = t.generation
""")  # noqa: S608  # constants of this module alone

READ_ANY = text(f"SELECT {_COLUMNS} FROM held_grants h WHERE h.tenant_id = :tenant")  # noqa: S608

NAME = text("""
    UPDATE held_grants SET account_id = :account_id, account_name = :account_name,
        next_try_at = now() + make_interval(secs => :held_for),
        expires_at = now() + make_interval(secs => :held_for)
    WHERE tenant_id = :tenant AND state_hash = :state_hash
""")

DROP = text("""
    DELETE FROM held_grants
    WHERE tenant_id = :tenant AND coalesce(state_hash = CAST(:state_hash AS bytea), true)
""")

CLAIM = text(f"""
    UPDATE held_grants h SET next_try_at = now() + make_interval(secs => :lease)
    WHERE h.tenant_id = (
        SELECT tenant_id FROM held_grants WHERE next_try_at < now()
        ORDER BY next_try_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING {_COLUMNS}
""")  # noqa: S608

SEALED = text("""
    SELECT tenant_id, access_token, refresh_token FROM held_grants
    WHERE tenant_id > :after ORDER BY tenant_id LIMIT :limit
""")

REPLACE = text("""
    UPDATE held_grants SET access_token = :fresh_access, refresh_token = :fresh_refresh,
        key_fingerprint = :key_fingerprint
    WHERE tenant_id = :tenant AND access_token = :access_token
""")


@dataclass(frozen=True, slots=True)
class HeldGrant:
    """``age_seconds``: since the request for the tokens. ``account`` None: not asked yet.
    ``actor``: who began the sign-in. ``warning``: what its page tells of the tokens, if any.
    ``is_expired``: nobody confirmed it in time."""

    tenant: str
    state_hash: bytes
    sealed: SealedTokens = field(repr=False)
    age_seconds: float
    actor: Actor
    warning: str | None
    account: Account | None
    is_expired: bool


@dataclass(frozen=True, slots=True)
class SealedHeldGrant:
    """A row's ciphertexts, for `keys rotate`."""

    tenant: str
    access_token: bytes = field(repr=False)
    refresh_token: bytes = field(repr=False)


async def hold(
    connection: Connection,
    tenant: str,
    sealed: SealedTokens,
    *,
    state_hash: bytes,
    actor: Actor,
    warning: str | None,
    age_seconds: float,
    lease_seconds: float,
) -> None:
    """Stores the tokens of a reconnect, in place of those that were held for the tenant before.

    ``lease_seconds``: for how long the caller alone asks for their account.
    """
    parameters = {
        "tenant": tenant,
        "state_hash": state_hash,
        "access_token": sealed.access_token,
        "refresh_token": sealed.refresh_token,
        "key_fingerprint": sealed.key_fingerprint,
        "token_type": sealed.token_type,
        "scope": sealed.scope,
        "has_refresh_token": sealed.has_refresh_token,
        "lifetime": sealed.lifetime_seconds,
        "refresh_lifetime": sealed.refresh_lifetime_seconds,
        "age": age_seconds,
        "actor": actor.name,
        "request_id": actor.request_id,
        "warning": warning,
        "lease": lease_seconds,
        "held_for": HELD_SECONDS,
    }
    await connection.execute(HOLD, parameters)


async def read(connection: Connection, tenant: str) -> HeldGrant | None:
    """What is held for the tenant; None, also where the tenant was connected or disconnected
    since."""
    row = (await connection.execute(READ, {"tenant": tenant})).one_or_none()
    return None if row is None else _held(row)


async def read_any(connection: Connection, tenant: str) -> HeldGrant | None:
    """What is held for the tenant, also where it was connected or disconnected since."""
    row = (await connection.execute(READ_ANY, {"tenant": tenant})).one_or_none()
    return None if row is None else _held(row)


async def name(connection: Connection, held: HeldGrant, account: Account) -> None:
    """Notes the account that the tokens are for, which an admin has to confirm."""
    parameters = {
        "tenant": held.tenant,
        "state_hash": held.state_hash,
        "account_id": account.id,
        "account_name": account.name,
        "held_for": HELD_SECONDS,
    }
    await connection.execute(NAME, parameters)


async def drop(connection: Connection, tenant: str, state_hash: bytes | None = None) -> None:
    """Deletes what is held for the tenant: of that sign-in, or None: of any."""
    await connection.execute(DROP, {"tenant": tenant, "state_hash": state_hash})


async def claim(connection: Connection, *, lease_seconds: float) -> HeldGrant | None:
    """What was not asked for its account in time, or not confirmed in time; None: nothing."""
    row = (await connection.execute(CLAIM, {"lease": lease_seconds})).one_or_none()
    return None if row is None else _held(row)


async def sealed(connection: Connection, *, after: str, limit: int) -> list[SealedHeldGrant]:
    """At most ``limit`` rows' ciphertexts, of tenants that follow ``after``, for `keys rotate`."""
    rows = await connection.execute(SEALED, {"after": after, "limit": limit})
    return [SealedHeldGrant(row.tenant_id, row.access_token, row.refresh_token) for row in rows]


async def replace(
    connection: Connection,
    before: SealedHeldGrant,
    fresh: SealedHeldGrant,
    *,
    key_fingerprint: str,
) -> None:
    """Stores the same tokens encrypted anew. The row may be gone by now."""
    parameters = {
        "tenant": before.tenant,
        "access_token": before.access_token,
        "fresh_access": fresh.access_token,
        "fresh_refresh": fresh.refresh_token,
        "key_fingerprint": key_fingerprint,
    }
    await connection.execute(REPLACE, parameters)


def _held(row: Row) -> HeldGrant:
    return HeldGrant(
        tenant=row.tenant_id,
        state_hash=row.state_hash,
        sealed=SealedTokens(
            access_token=row.access_token,
            refresh_token=row.refresh_token,
            token_type=row.token_type,
            scope=row.scope,
            lifetime_seconds=row.lifetime_seconds,
            key_fingerprint=row.key_fingerprint,
            has_refresh_token=row.has_refresh_token,
            refresh_lifetime_seconds=row.refresh_lifetime_seconds,
        ),
        age_seconds=row.age_seconds,
        actor=Actor(row.actor, row.request_id),
        warning=row.warning,
        account=None if row.account_id is None else Account(row.account_id, row.account_name),
        is_expired=row.is_expired,
    )
