"""A key is replaced by another of its name, with time for its service to change over."""

from __future__ import annotations

import secrets
from datetime import datetime

from ignition_broker.broker.callers.access import KEY_PREFIX, expiry_to_come, key_hash
from ignition_broker.broker.errors import InvalidRequest, NotFound
from ignition_broker.clock import Clock
from ignition_broker.model import Actor, ApiKey, AuditEvent
from ignition_broker.storage import api_keys, audit
from ignition_broker.storage.database import Database

DEFAULT_GRACE_SECONDS = 86_400
LONGEST_GRACE_SECONDS = 365 * 86_400


async def rotate_key(
    database: Database,
    clock: Clock,
    name: str,
    *,
    grace_seconds: float,
    expires_at: datetime | None = None,
    actor: Actor,
) -> tuple[ApiKey, str]:
    """Another key of the same name, scopes, tenants and paths: as `create_key` answers.

    The key of before works for ``grace_seconds`` more. ``expires_at`` None: as it was.
    Raises `InvalidRequest` or `NotFound`.
    """
    if not 0 <= grace_seconds <= LONGEST_GRACE_SECONDS:
        raise InvalidRequest(f"grace_seconds: from 0 to {LONGEST_GRACE_SECONDS}, such as 86400.")
    if expires_at is not None:
        expires_at = expiry_to_come(expires_at, clock.now())
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    async with database.begin() as connection:
        locked = await api_keys.lock(connection, name)
        if locked is None:
            raise NotFound(f"No API key called {name!r}.")
        if locked.is_expired and expires_at is None:
            raise InvalidRequest("expires_at: this key has expired; give the new one a later end.")
        await api_keys.keep_replaced(connection, name, grace_seconds=grace_seconds)
        api_key = await api_keys.replace(
            connection, name, key_hash=key_hash(key), expires_at=expires_at
        )
        detail: dict[str, object] = {
            "key": name,
            "grace_seconds": grace_seconds,
            "expires_at": api_key.expires_at and api_key.expires_at.isoformat(),
        }
        await audit.append(
            connection,
            AuditEvent("api_key_rotate", "done", actor.name, None, actor.request_id, detail),
        )
    return api_key, key
