"""One-time links: how admins make, list and revoke them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ignition_broker.broker.errors import BrokerError, NotFound, UnknownTenant
from ignition_broker.broker.grants.tenants import checked, note_description
from ignition_broker.cipher import secret_hash
from ignition_broker.model import Actor, AuditEvent
from ignition_broker.storage import audit, connect_links, tenants
from ignition_broker.storage.connect_links import ListedLink
from ignition_broker.storage.database import Database
from ignition_broker.storage.makers import Maker, Standing
from ignition_broker.storage.tenants import Description

CONNECT_LINK_LIFETIME_SECONDS = 7 * 86400
UNDESCRIBED: Final = Description()
"""Name and labels stay as they are."""


class LinkForged(BrokerError):
    """No such link was ever made."""


class LinkSpent(BrokerError):
    """It was used or revoked, has expired, or ended with the key or session that made it.

    ``return_to``: where its pages lead back to, if anywhere.
    """

    def __init__(
        self, detail: str, *, tenant: str | None = None, return_to: str | None = None
    ) -> None:
        super().__init__(detail, tenant=tenant)
        self.return_to = return_to


@dataclass(frozen=True, slots=True)
class NewLink:
    """``token`` is the link's secret part, which is shown only now; ``id`` is no secret."""

    id: str
    token: str
    expires_at: datetime


async def create_link(
    database: Database,
    tenant: str,
    actor: Actor,
    maker: Maker,
    description: Description = UNDESCRIBED,
    return_to: str | None = None,
) -> NewLink:
    """Makes a link, and its tenant if that is new, and sets the tenant's name and labels.

    The link works for a week at most, until its tenant is next connected or disconnected, and
    while ``maker`` is valid. ``return_to``: where its pages lead back to, as
    `return_addresses.check_return_address` allows it. Raises `InvalidRequest` for a name or label
    that may not be one.
    """
    checked(description)
    token = secrets.token_urlsafe(32)
    async with database.begin() as connection:
        await tenants.ensure(connection, tenant)
        if description.sets_name or description.sets_labels:
            await note_description(connection, tenant, description, actor)
        link = await connect_links.create(
            connection,
            token_hash=link_hash(token),
            tenant=tenant,
            lifetime_seconds=CONNECT_LINK_LIFETIME_SECONDS,
            created_by=actor.name,
            maker=maker,
            return_to=return_to,
        )
        event = AuditEvent(
            "connect_link_create", "done", actor.name, tenant, actor.request_id, {"link": link.id}
        )
        await audit.append(connection, event)
    return NewLink(link.id, token, link.expires_at)


async def list_links(database: Database, tenant: str, standing: Standing) -> Sequence[ListedLink]:
    """The tenant's links that work or were used, newest first. Raises `UnknownTenant`."""
    async with database.begin() as connection:
        if await tenants.read(connection, tenant) is None:
            raise UnknownTenant(tenant)
        return await connect_links.list_of(connection, tenant, standing)


async def revoke_link(database: Database, tenant: str, link_id: str, actor: Actor) -> None:
    """Ends the link, and the sign-in that it began if one is under way.

    Raises `UnknownTenant` or `NotFound`.
    """
    async with database.begin() as connection:
        if await tenants.read(connection, tenant) is None:
            raise UnknownTenant(tenant)
        created_by = await connect_links.revoke(connection, tenant, link_id)
        if created_by is None:
            raise NotFound(f"No connect link {link_id!r} of this tenant.", tenant=tenant)
        detail: dict[str, object] = {"link": link_id, "created_by": created_by}
        event = AuditEvent(
            "connect_link_revoke", "done", actor.name, tenant, actor.request_id, detail
        )
        await audit.append(connection, event)


def link_hash(token: str) -> bytes:
    """What is stored of a connect link's token."""
    return secret_hash(token)
