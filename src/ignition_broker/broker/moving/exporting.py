"""Reads all connected grants for another deployment: from one snapshot, in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC
from typing import Final

from ignition_broker.cipher import Cipher
from ignition_broker.grant_ids import client_of, tenant_of
from ignition_broker.model import Actor, AuditEvent
from ignition_broker.storage import audit, moving
from ignition_broker.storage.database import Database
from ignition_broker.storage.moving import MovingGrant

PAGE: Final = 500


async def grants_to_move(database: Database, cipher: Cipher) -> AsyncIterator[dict[str, object]]:
    """The fields of each grant, under the names of `rows.COLUMNS`, by their ids.

    Raises the errors of `storage.errors`, or `CipherError` for a grant that no key decrypts.
    """
    after = ""
    async with database.snapshot() as connection:
        while True:
            page = await moving.connected_after(connection, after, limit=PAGE)
            for grant in page:
                yield _fields(cipher, grant)
            if len(page) < PAGE:
                return
            after = page[-1].grant


async def note_export(database: Database, actor: Actor, *, count: int, thumbprint: str) -> None:
    """Records the export. ``thumbprint``: of the public key (RFC 7638)."""
    detail: dict[str, object] = {"grants": count, "to_key": thumbprint}
    event = AuditEvent("tenants_export", "done", actor.name, None, actor.request_id, detail)
    async with database.begin() as connection:
        await audit.append(connection, event)


def _fields(cipher: Cipher, grant: MovingGrant) -> dict[str, object]:
    return {
        "tenant": tenant_of(grant.grant),
        "client": client_of(grant.grant),
        "refresh_token": cipher.decrypt(grant.grant, "refresh_token", grant.refresh_token),
        "access_token": cipher.decrypt(grant.grant, "access_token", grant.access_token),
        "expires_at": None
        if grant.expires_at is None
        else grant.expires_at.astimezone(UTC).isoformat(),
        "scope": grant.scope,
        "name": grant.name,
        "labels": dict(grant.labels),
    }
