"""Disconnecting a tenant: its tokens are forgotten here and revoked at Ignition."""

from __future__ import annotations

from ignition_broker.broker.errors import UnknownTenant
from ignition_broker.broker.grants.held_grants import HeldGrants
from ignition_broker.broker.grants.revocations import Revocations
from ignition_broker.cipher import Cipher
from ignition_broker.model import Actor, AuditEvent
from ignition_broker.storage import connect_links, grants, tenants
from ignition_broker.storage.database import Database


async def disconnect(
    database: Database,
    cipher: Cipher,
    revocations: Revocations,
    held: HeldGrants,
    tenant: str,
    actor: Actor,
) -> bool | None:
    """Forgets the tenant's tokens on all replicas, then revokes them at Ignition if it can; also
    those of a reconnect that are held until an admin confirms their account.

    Returns whether Ignition confirmed the revocation; None if it was not asked. A revocation that
    was not answered is tried again in the background. Raises `UnknownTenant`.
    """
    event = AuditEvent("disconnect", "done", actor.name, tenant, actor.request_id)
    async with database.begin() as connection:
        if await tenants.end_begun(connection, tenant) is None:
            raise UnknownTenant(tenant)
        await connect_links.revoke_all(connection, tenant)
        token = await grants.disconnect(connection, cipher, tenant, event)
        pending = token and await revocations.add(connection, tenant, token, actor)
        waiting = await held.let_go_of(connection, tenant, actor)
    if waiting is not None:
        await revocations.attempt(waiting)
    return await revocations.attempt(pending) if pending else None
