"""Tenants as admins see and describe them, and the audit trail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ignition_broker.broker.errors import InvalidRequest, UnknownTenant
from ignition_broker.model import Actor, AuditEvent, GrantStatus, RecordedEvent, TenantSummary
from ignition_broker.storage import audit, audit_search, tenants
from ignition_broker.storage.audit_search import Criteria, Found
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.database import Database
from ignition_broker.storage.tenants import Description
from ignition_broker.tenant_labels import LabelRefused, check_labels, check_name


async def list_tenants(
    database: Database,
    *,
    after: str = "",
    status: GrantStatus | None = None,
    labels: Mapping[str, str] | None = None,
    limit: int,
    client: str | None = None,
    beginning: str = "",
) -> Sequence[TenantSummary]:
    """At most ``limit`` grants in the order of their tenants' ids, from the one behind ``after``.

    ``status``, ``labels``, ``client``: only those that have it, and all of them; None: all.
    ``beginning``: only those whose id or name begins so, in any case.
    """
    return await database.once(
        lambda c: tenants.list_after(
            c,
            after=after,
            status=status,
            labels=labels,
            limit=limit,
            client=client,
            beginning=beginning,
        )
    )


def checked(description: Description) -> Description:
    """The description, if its name and labels may be ones. Raises `InvalidRequest`."""
    try:
        if description.name is not None:
            check_name(description.name)
        check_labels(description.labels or {})
    except LabelRefused as error:
        raise InvalidRequest(f"{error}.") from None
    return description


async def describe_tenant(
    database: Database, tenant: str, description: Description, actor: Actor
) -> None:
    """Sets the tenant's name and labels. Raises `UnknownTenant` or `InvalidRequest`."""
    checked(description)
    async with database.begin() as connection:
        await note_description(connection, tenant, description, actor)


async def note_description(
    connection: Connection, tenant: str, description: Description, actor: Actor
) -> None:
    """As `describe_tenant`, in the caller's transaction, of a description that was `checked`."""
    if not await tenants.describe(connection, tenant, description):
        raise UnknownTenant(tenant)
    detail: dict[str, object] = {}
    if description.sets_name:
        detail["name"] = description.name
    if description.sets_labels:
        detail["labels"] = dict(description.labels or {})
    if detail:
        event = AuditEvent("tenant_describe", "done", actor.name, tenant, actor.request_id, detail)
        await audit.append(connection, event)


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
    database: Database,
    *,
    tenant: str | None,
    before: int | None,
    limit: int,
    client: str | None = None,
) -> Sequence[RecordedEvent]:
    """At most ``limit`` audit events, newest first: of one tenant or of all, of one OAuth client or
    of all, and only those before the event with the id ``before``, if given."""
    return await database.once(
        lambda c: audit.newest(c, tenant=tenant, before=before, limit=limit, client=client)
    )


async def search_audit(
    database: Database, criteria: Criteria, *, before: int | None, limit: int
) -> Found:
    """At most ``limit`` audit events of the kind, newest first, and where to go on."""
    return await database.once(
        lambda c: audit_search.search(c, criteria, before=before, limit=limit)
    )
