"""All that the database knows of why a grant is as it is: its row, and what happened to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text

from ignition_broker.grant_ids import client_of, tenant_of
from ignition_broker.model import RecordedEvent
from ignition_broker.storage.audit import CLIENT, recorded
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.renewability import HAS_KNOWN_END, IS_RENEWABLE

EVENTS_SCANNED: Final = 20_000
"""A busy tenant has a hundred thousand events of issued tokens a day. So many of the newest are
looked through, so that an explanation costs no more than some tens of milliseconds."""
EVENTS_READ: Final = 100
ABOUT_THE_GRANT: Final = (
    "account",
    "account_confirm",
    "account_discard",
    "connect",
    "database_went_back",
    "decrypt",
    "disconnect",
    "grant_end",
    "refresh",
    "revoke",
)

READ = text(f"""
    SELECT now() AS now, grants.status, grants.access_token, grants.refresh_token,
        grants.connected_at, grants.refreshed_at, grants.used_at, grants.next_refresh_at,
        CASE WHEN {HAS_KNOWN_END} THEN grants.expires_at END AS expires_at,
        grants.refresh_token_expires_at, grants.failures, grants.last_error,
        grants.refresh_started_at IS NOT NULL AND coalesce(grants.lease_until <= now(), true)
            AS is_uncertain,
        coalesce(grants.status = 'connected' AND {IS_RENEWABLE}, false) AS renewable,
        (SELECT held.account_id FROM held_grants AS held
         WHERE held.tenant_id = tenants.id AND held.generation = tenants.generation
           AND held.expires_at > now()) AS held_account
    FROM tenants LEFT JOIN grants ON grants.tenant_id = tenants.id
    WHERE tenants.id = :tenant
""")  # noqa: S608  # constants of this package alone

EVENTS = text(f"""
    SELECT id, at, tenant_id, actor, action, outcome, request_id, detail, chain, position, hash
    FROM (SELECT * FROM audit_events WHERE tenant_id = :tenant ORDER BY id DESC
          LIMIT {EVENTS_SCANNED}) AS newest
    WHERE action = ANY(:actions) AND coalesce(detail->>'{CLIENT}', 'default') = :client
    ORDER BY id DESC LIMIT {EVENTS_READ}
""")  # noqa: S608

# Connected to the account of this tenant since, at the same OAuth client.
OTHERS = text("""
    SELECT other.tenant, theirs.connected_at
    FROM tenants JOIN tenants other ON other.account_id = tenants.account_id
        AND other.id <> tenants.id AND other.client = tenants.client
    JOIN grants theirs ON theirs.tenant_id = other.id
        AND theirs.connected_at = other.account_connected_at
    WHERE tenants.id = :tenant ORDER BY theirs.connected_at DESC LIMIT 5
""")


@dataclass(frozen=True, slots=True)
class OtherTenant:
    """Another tenant that was connected to the same account at Ignition."""

    tenant: str
    connected_at: datetime


@dataclass(frozen=True, slots=True)
class GrantFacts:
    """A tenant's row as of ``now``, on the database's clock like all its moments.

    - ``status``: None for a tenant that was never connected.
    - ``access_token``, ``refresh_token``: encrypted; None for a disconnected tenant.
    - ``is_uncertain``: the answer to the last refresh was lost.
    - ``held_account``: the account that a reconnect brought, until an admin confirms it.
    """

    now: datetime
    status: str | None
    access_token: bytes | None = None
    refresh_token: bytes | None = None
    connected_at: datetime | None = None
    refreshed_at: datetime | None = None
    used_at: datetime | None = None
    next_refresh_at: datetime | None = None
    expires_at: datetime | None = None
    refresh_token_expires_at: datetime | None = None
    failures: int = 0
    last_error: str | None = None
    is_uncertain: bool = False
    renewable: bool = False
    held_account: str | None = None
    others: tuple[OtherTenant, ...] = ()


async def read(connection: Connection, grant: str) -> GrantFacts | None:
    """The facts of a grant; None for an unknown tenant."""
    row = (await connection.execute(READ, {"tenant": grant})).one_or_none()
    if row is None:
        return None
    others = await connection.execute(OTHERS, {"tenant": grant})
    return GrantFacts(
        now=row.now,
        status=row.status,
        access_token=row.access_token,
        refresh_token=row.refresh_token,
        connected_at=row.connected_at,
        refreshed_at=row.refreshed_at,
        used_at=row.used_at,
        next_refresh_at=row.next_refresh_at,
        expires_at=row.expires_at,
        refresh_token_expires_at=row.refresh_token_expires_at,
        failures=row.failures or 0,
        last_error=row.last_error,
        is_uncertain=bool(row.is_uncertain),
        renewable=row.renewable,
        held_account=row.held_account,
        others=tuple(OtherTenant(each.tenant, each.connected_at) for each in others),
    )


async def events(connection: Connection, grant: str) -> Sequence[RecordedEvent]:
    """What happened to the grant, newest first: at most `EVENTS_READ` events, of the newest
    `EVENTS_SCANNED` of its tenant."""
    given = {
        "tenant": tenant_of(grant),
        "client": client_of(grant),
        "actions": list(ABOUT_THE_GRANT),
    }
    return [recorded(row) for row in await connection.execute(EVENTS, given)]
