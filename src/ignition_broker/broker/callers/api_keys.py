"""API keys: created and shown once, listed, revoked. `api_key_rotation` replaces them.

Only a key's SHA-256 is stored. `access` finds out who shows one.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from ignition_broker.broker.callers.entitlements import check_allowance, check_entitlements
from ignition_broker.broker.errors import Conflict, InvalidRequest, NotFound
from ignition_broker.cipher import secret_hash
from ignition_broker.clock import Clock
from ignition_broker.model import Actor, ApiKey, AuditEvent
from ignition_broker.storage import api_keys, audit
from ignition_broker.storage.database import Database

API_KEY_PREFIX: Final = "ibk_"
BOOTSTRAP_ADMIN: Final = "bootstrap-admin"
RESERVED_NAMES: Final = frozenset({BOOTSTRAP_ADMIN, "broker", "cli", "dev", "unknown"})
"""Actors that are no API key; a key of that name would act in theirs."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def new_api_key() -> str:
    """An API key with 256 random bits."""
    return API_KEY_PREFIX + secrets.token_urlsafe(32)


def api_key_hash(api_key: str) -> bytes:
    """What is stored of an API key."""
    return secret_hash(api_key)


async def create_api_key(
    database: Database,
    clock: Clock,
    *,
    name: str,
    scopes: Sequence[str],
    tenants: Sequence[str],
    expires_at: datetime | None,
    paths: Sequence[str] | None = None,
    allowance_weight: int = 1,
    allowance_reserve: int = 0,
    actor: Actor,
) -> tuple[ApiKey, str]:
    """Stores a new API key and an audit event.

    Args:
        name: under which it is listed and audited; that of a revoked key may be used again.
        scopes: values of `Scope`.
        tenants: tenant ids and patterns (`tenant_patterns`); an admin needs none.
        expires_at: when it ends, with a time zone; None: never.
        paths: rules for its calls through the proxy (`path_rules`); None: every call.
        allowance_weight: its share of a tenant's calls is in proportion to that.
        allowance_reserve: so many of a tenant's calls are kept for it in each window.
        actor: who creates it.

    Returns:
        The key as it is listed, and the key itself, which is stored nowhere.

    Raises:
        InvalidRequest: an argument is malformed; the text names the field and how to mend it.
        Conflict: a key of that name exists and is not revoked.
    """
    check_api_key_request(name, scopes, tenants, paths)
    check_allowance(scopes, allowance_weight, allowance_reserve)
    if expires_at is not None:
        expires_at = future_expiry(expires_at, clock.now())
    rules = None if paths is None else list(dict.fromkeys(paths))
    api_key = new_api_key()
    async with database.begin() as connection:
        listed = await api_keys.create(
            connection,
            name=name,
            key_hash=api_key_hash(api_key),
            scopes=list(dict.fromkeys(scopes)),
            tenants=list(dict.fromkeys(tenants)),
            expires_at=expires_at,
            paths=rules,
            allowance_weight=allowance_weight,
            allowance_reserve=allowance_reserve,
            created_by=actor.name,
        )
        if listed is None:
            raise Conflict(f"name: a key called {name!r} exists; revoke it or take another name.")
        detail: dict[str, object] = {
            "key": name,
            "scopes": list(scopes),
            "tenants": list(tenants),
            "paths": rules,
            "allowance_weight": allowance_weight,
            "allowance_reserve": allowance_reserve,
        }
        await audit.append(
            connection,
            AuditEvent("api_key_create", "done", actor.name, None, actor.request_id, detail),
        )
    return listed, api_key


def check_api_key_request(
    name: str, scopes: Sequence[str], tenants: Sequence[str], paths: Sequence[str] | None
) -> None:
    """Raises `InvalidRequest`, which names the field and how to mend it."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest("name: letters, digits, '.', '_' and '-', at most 63 of them.")
    if name.lower() in RESERVED_NAMES:
        raise InvalidRequest(f"name: {name!r} is reserved in the audit trail; take another.")
    check_entitlements(scopes, tenants, paths)


def future_expiry(expires_at: datetime, now: datetime) -> datetime:
    """``expires_at`` in UTC. Raises `InvalidRequest` unless it is later than ``now``."""
    try:
        # The driver would convert it too, past every check.
        expires_at = expires_at.astimezone(UTC)
    except OverflowError:
        raise InvalidRequest("expires_at: is outside the years 1 to 9999 in UTC.") from None
    if expires_at <= now:
        raise InvalidRequest("expires_at: lies in the past; give a later time.")
    return expires_at


async def revoke_api_key(database: Database, name: str, actor: Actor) -> None:
    """Ends the API key of that name, and those that it replaced, on every replica.

    Raises `NotFound` where no key of that name works.
    """
    async with database.begin() as connection:
        if not await api_keys.revoke(connection, name):
            raise NotFound(f"No API key called {name!r}.")
        await audit.append(
            connection,
            AuditEvent("api_key_revoke", "done", actor.name, None, actor.request_id, {"key": name}),
        )


async def list_api_keys(database: Database) -> list[ApiKey]:
    """All API keys by name, revoked ones too, without the keys themselves."""
    return await database.once(api_keys.list_all)
