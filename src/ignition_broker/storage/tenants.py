"""Tenants, as an admin sees them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import text

from ignition_broker.grant_ids import client_of, tenant_of
from ignition_broker.model import Account, GrantStatus, PendingAccount, TenantSummary
from ignition_broker.storage.accounts import SHARED_WITH
from ignition_broker.storage.connection import Connection, Row
from ignition_broker.storage.renewability import HAS_KNOWN_END, IS_RENEWABLE

ENSURE = text("INSERT INTO tenants (id) VALUES (:tenant) ON CONFLICT DO NOTHING")

LOCK = text("SELECT generation FROM tenants WHERE id = :tenant FOR NO KEY UPDATE")

# Links and sign-ins of an older generation no longer work.
END_BEGUN = text("""
    UPDATE tenants SET generation = generation + 1 WHERE id = :tenant RETURNING generation
""")

_ACCOUNT_IS_KNOWN = "tenants.account_connected_at = grants.connected_at"

# Under other names, since the conditions on grants name their columns without their table.
_HELD = """
    SELECT tenant_id AS held_for, generation AS held_since, account_id AS held_id,
        account_name AS held_name, expires_at AS held_until
    FROM held_grants WHERE account_id IS NOT NULL AND expires_at > now()
"""

_SUMMARY = f"""
    SELECT tenants.tenant, tenants.client, coalesce(grants.status, 'disconnected') AS status,
        grants.scope,
        CASE WHEN {HAS_KNOWN_END} THEN grants.expires_at END AS expires_at,
        grants.connected_at, grants.refreshed_at, grants.last_error,
        coalesce(grants.status = 'connected' AND {IS_RENEWABLE}, false) AS renewable,
        grants.refresh_token_expires_at, tenants.name, tenants.labels,
        CASE WHEN {_ACCOUNT_IS_KNOWN} THEN tenants.account_id END AS account_id,
        CASE WHEN {_ACCOUNT_IS_KNOWN} THEN tenants.account_name END AS account_name,
        CASE WHEN {_ACCOUNT_IS_KNOWN} AND grants.status = 'connected'
             THEN ARRAY({SHARED_WITH}) END AS shared_with,
        held.held_id, held.held_name, held.held_until
    FROM tenants LEFT JOIN grants ON grants.tenant_id = tenants.id
    LEFT JOIN ({_HELD}) AS held
        ON held.held_for = tenants.id AND held.held_since = tenants.generation
"""  # noqa: S608  # constants of this package alone

READ = text(f"{_SUMMARY} WHERE tenants.id = :tenant")

_LABELLED = "tenants.labels @> CAST(:labels AS jsonb)"

# Compared byte by byte, as the indexes tenants_begin and tenants_name_begin are sorted.
_BEGINS = """
    ((tenants.tenant ~>=~ :begins AND tenants.tenant ~<~ :begins_end)
     OR (tenants.name IS NOT NULL
         AND lower(tenants.name) ~>=~ :begins AND lower(tenants.name) ~<~ :begins_end))
"""
_LAST_CHARACTER = "\U0010ffff"

_NEVER_CONNECTED = "NOT tenants.has_grant"


def _listing(condition: str, *, by_labels: bool, by_beginning: bool) -> str:
    return f"""
        {_SUMMARY} WHERE (tenants.tenant, tenants.client) > (:after_tenant, :after_client)
          AND {condition} AND {_LABELLED if by_labels else "true"}
          AND {_BEGINS if by_beginning else "true"}
          AND (CAST(:client AS text) IS NULL OR tenants.client = :client)
        ORDER BY tenant, client LIMIT :limit
    """


def _listing_of(status: GrantStatus | None, *, by_labels: bool, by_beginning: bool) -> str:
    condition = "true" if status is None else f"grants.status = '{status.value}'"
    listing = _listing(condition, by_labels=by_labels, by_beginning=by_beginning)
    if status is GrantStatus.DISCONNECTED:
        # Apart, since each of the two is read by an index of its own.
        others = _listing(_NEVER_CONNECTED, by_labels=by_labels, by_beginning=by_beginning)
        return f"({listing}) UNION ALL ({others}) ORDER BY tenant, client LIMIT :limit"
    return listing


# One for each set of conditions, since no index can serve a condition that may be absent: by the
# status, and by whether labels and a beginning are given.
LISTINGS = {
    (status, by_labels, by_beginning): text(
        _listing_of(status, by_labels=by_labels, by_beginning=by_beginning)
    )
    for status in (None, *GrantStatus)
    for by_labels in (False, True)
    for by_beginning in (False, True)
}

DESCRIBE = text("""
    UPDATE tenants SET
        name = CASE WHEN :sets_name THEN CAST(:name AS text) ELSE name END,
        labels = CASE WHEN :sets_labels THEN CAST(:labels AS jsonb) ELSE labels END
    WHERE id = :tenant RETURNING id
""")


@dataclass(frozen=True, slots=True)
class Description:
    """What an admin sets of a tenant's name and labels.

    ``sets_name`` and ``sets_labels`` False: they stay as they are. ``name`` None and no ``labels``:
    they are cleared.
    """

    sets_name: bool = False
    name: str | None = None
    sets_labels: bool = False
    labels: Mapping[str, str] | None = None


async def ensure(connection: Connection, tenant: str) -> None:
    """Creates the tenant if it does not exist."""
    await connection.execute(ENSURE, {"tenant": tenant})


async def lock(connection: Connection, tenant: str) -> None:
    """Keeps other connects and disconnects of this tenant waiting until the transaction ends."""
    await connection.execute(LOCK, {"tenant": tenant})


async def end_begun(connection: Connection, tenant: str) -> int | None:
    """Ends the tenant's links and unfinished sign-ins. Returns the new generation, or None for an
    unknown tenant."""
    generation: int | None = await connection.scalar(END_BEGUN, {"tenant": tenant})
    return generation


async def read(connection: Connection, tenant: str) -> TenantSummary | None:
    """The tenant, or None if it is unknown."""
    row = (await connection.execute(READ, {"tenant": tenant})).one_or_none()
    return None if row is None else _summary(row)


async def list_after(
    connection: Connection,
    *,
    after: str,
    status: GrantStatus | None,
    limit: int,
    client: str | None = None,
    labels: Mapping[str, str] | None = None,
    beginning: str = "",
) -> Sequence[TenantSummary]:
    """At most ``limit`` grants in the order of their tenants' ids and clients, from the one that
    follows the grant ``after`` ("": the first).

    ``status`` None: any. ``client`` None: of all OAuth clients. ``labels``: those that have all of
    these; none: any. ``beginning``: those whose id or name begins so, in any case.
    """
    parameters: dict[str, object] = {
        "after_tenant": tenant_of(after),
        "after_client": client_of(after) if after else "",
        "client": client,
        "limit": limit,
    }
    if labels:
        parameters["labels"] = json.dumps(dict(labels))
    if beginning:
        parameters["begins"] = beginning.lower()
        parameters["begins_end"] = beginning.lower() + _LAST_CHARACTER
    statement = LISTINGS[status, bool(labels), bool(beginning)]
    return [_summary(row) for row in await connection.execute(statement, parameters)]


async def describe(connection: Connection, tenant: str, description: Description) -> bool:
    """Sets the tenant's name and labels. False for an unknown tenant."""
    parameters = {
        "tenant": tenant,
        "sets_name": description.sets_name,
        "name": description.name,
        "sets_labels": description.sets_labels,
        "labels": json.dumps(dict(description.labels)) if description.labels else None,
    }
    return (await connection.execute(DESCRIBE, parameters)).one_or_none() is not None


def _summary(row: Row) -> TenantSummary:
    return TenantSummary(
        tenant=row.tenant,
        client=row.client,
        status=GrantStatus(row.status),
        scope=row.scope,
        expires_at=row.expires_at,
        connected_at=row.connected_at,
        refreshed_at=row.refreshed_at,
        last_error=row.last_error,
        renewable=row.renewable,
        refresh_token_expires_at=row.refresh_token_expires_at,
        name=row.name,
        labels=row.labels or {},
        account=None if row.account_id is None else Account(row.account_id, row.account_name),
        account_shared_with=tuple(row.shared_with or ()),
        pending_account=None
        if row.held_id is None
        else PendingAccount(row.held_id, row.held_name, row.held_until),
    )
