"""An API key is replaced by a new one of the same name; the old one works for a grace period."""

from __future__ import annotations

from datetime import datetime

from ignition_broker.broker.callers.api_keys import api_key_hash, future_expiry, new_api_key
from ignition_broker.broker.errors import InvalidRequest, NotFound
from ignition_broker.clock import Clock
from ignition_broker.model import Actor, ApiKey, AuditEvent
from ignition_broker.storage import api_keys, audit
from ignition_broker.storage.database import Database

DEFAULT_GRACE_SECONDS = 86_400
LONGEST_GRACE_SECONDS = 365 * 86_400


async def rotate_api_key(
    database: Database,
    clock: Clock,
    name: str,
    *,
    grace_seconds: float,
    expires_at: datetime | None = None,
    actor: Actor,
) -> tuple[ApiKey, str]:
    """Stores a new API key with the same name, scopes, tenants and paths, and an audit event.

    Args:
        grace_seconds: for how long the old key still works; 0 ends it now.
        expires_at: when the new key ends, with a time zone; None: when the old one would have.
        actor: who rotates it.

    Returns:
        The key as it is listed, and the new key itself, which is stored nowhere.

    Raises:
        InvalidRequest: an argument is out of range, or the key has expired and no later end is
            given.
        NotFound: no key of that name works.
    """
    if not 0 <= grace_seconds <= LONGEST_GRACE_SECONDS:
        raise InvalidRequest(f"grace_seconds: from 0 to {LONGEST_GRACE_SECONDS}, such as 86400.")
    if expires_at is not None:
        expires_at = future_expiry(expires_at, clock.now())
    api_key = new_api_key()
    async with database.begin() as connection:
        locked = await api_keys.lock(connection, name)
        if locked is None:
            raise NotFound(f"No API key called {name!r}.")
        if locked.is_expired and expires_at is None:
            raise InvalidRequest("expires_at: this key has expired; give the new one a later end.")
        await api_keys.keep_replaced(connection, name, grace_seconds=grace_seconds)
        listed = await api_keys.replace(
            connection, name, key_hash=api_key_hash(api_key), expires_at=expires_at
        )
        detail: dict[str, object] = {
            "key": name,
            "grace_seconds": grace_seconds,
            "expires_at": listed.expires_at and listed.expires_at.isoformat(),
        }
        await audit.append(
            connection,
            AuditEvent("api_key_rotate", "done", actor.name, None, actor.request_id, detail),
        )
    return listed, api_key
