"""Explains why a tenant's grant is as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ignition_broker.broker.errors import UnknownTenant
from ignition_broker.broker.explanations.causes import Cause, Confidence, Explanation
from ignition_broker.broker.explanations.ended import causes_of_end
from ignition_broker.broker.explanations.standing import (
    causes_of_connected,
    causes_without_grant,
    held_account,
)
from ignition_broker.cipher import Cipher, CipherError
from ignition_broker.grant_ids import client_of, tenant_of
from ignition_broker.model import GrantStatus, RecordedEvent
from ignition_broker.storage import grant_facts
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.database import Database
from ignition_broker.storage.grant_facts import GrantFacts

TELLS_APART: Final = (
    "Ignition's own list of connected apps and its log show whether access was withdrawn there, "
    "and when which refresh token was last used; the customer knows whether they did it."
)


async def explain(database: Database, cipher: Cipher, grant: str) -> Explanation:
    """Why the grant with that id is as it is. Raises `UnknownTenant`."""

    async def read(connection: Connection) -> tuple[GrantFacts | None, Sequence[RecordedEvent]]:
        return (
            await grant_facts.read(connection, grant),
            await grant_facts.events(connection, grant),
        )

    facts, events = await database.once(read)
    if facts is None:
        raise UnknownTenant(grant)
    return explanation(grant, facts, events, is_readable=_is_readable(cipher, grant, facts))


def explanation(
    grant: str, facts: GrantFacts, events: Sequence[RecordedEvent], *, is_readable: bool
) -> Explanation:
    """Judges what was read. ``events``: newest first. ``is_readable``: whether this process can
    decrypt the tokens. Pure."""
    status = facts.status or GrantStatus.DISCONNECTED
    causes: list[Cause]
    if status == GrantStatus.CONNECTED:
        causes = causes_of_connected(facts, events, is_readable=is_readable)
    elif status == GrantStatus.REAUTHORIZATION_REQUIRED:
        causes = causes_of_end(facts, events)
    else:
        causes = causes_without_grant(facts, events)
    is_open = causes[0].confidence is Confidence.POSSIBLE and len(causes) > 1
    return Explanation(
        tenant=tenant_of(grant),
        client=client_of(grant),
        status=str(status),
        causes=(*causes, *held_account(facts, events)),
        tells_apart=TELLS_APART if is_open else None,
    )


def _is_readable(cipher: Cipher, grant: str, facts: GrantFacts) -> bool:
    sealed = {"access_token": facts.access_token, "refresh_token": facts.refresh_token}
    try:
        for column, value in sealed.items():
            if value is not None:
                cipher.decrypt(grant, column, value)
    except CipherError:
        return False
    return True
