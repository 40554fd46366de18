"""Look-ups for admins: tenants and the audit trail."""

from __future__ import annotations

from collections.abc import Sequence

from ignition_broker.broker.errors import UnknownTenant
from ignition_broker.model import GrantStatus, RecordedEvent, TenantSummary
from ignition_broker.storage import audit, tenants
from ignition_broker.storage.database import Database


async def list_tenants(
    database: Database, *, after: str = "", status: GrantStatus | None = None, limit: int
) -> Sequence[TenantSummary]:
    """At most ``limit`` tenants in the order of their ids, from the one behind ``after``.

    ``status``: only those; None: all.
    """
    return await database.once(
        lambda c: tenants.list_after(c, after=after, status=status, limit=limit)
    )


async def show_tenant(database: Database, tenant: str) -> TenantSummary:
    """What an admin sees of the tenant. Raises `UnknownTenant`."""
    found = await database.once(lambda c: tenants.read(c, tenant))
    if found is None:
        raise UnknownTenant(tenant)
    return found


async def is_connected(database: Database, tenant: str) -> bool:
    """Whether the tenant is there and connected."""
    found = await database.once(lambda c: tenants.read(c, tenant))
    return found is not None and found.status is GrantStatus.CONNECTED


async def list_audit(
    database: Database, *, tenant: str | None, before: int | None, limit: int
) -> Sequence[RecordedEvent]:
    """At most ``limit`` audit events, newest first: of one tenant or of all, and only those before
    the event with the id ``before``, if given."""
    return await database.once(lambda c: audit.newest(c, tenant=tenant, before=before, limit=limit))
