"""API keys: made, shown once, looked up by hash, revoked everywhere at once."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import Sequence
from datetime import datetime

from ignition_broker.broker.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from ignition_broker.broker.hearing import PATIENCE_SECONDS, HeardValues, Hearing
from ignition_broker.cipher import is_same_secret
from ignition_broker.clock import Clock
from ignition_broker.model import Actor, ApiKey, AuditEvent, Caller, Scope, is_tenant_pattern
from ignition_broker.path_rules import MalformedRule, check_rules
from ignition_broker.storage import api_keys, audit
from ignition_broker.storage.engine import Database
from ignition_broker.storage.errors import StorageError

KEY_PREFIX = "ibk_"
BOOTSTRAP_ADMIN = "bootstrap-admin"
LARGEST_NUMBER_HELD = 10_000
USE_NOTED_EVERY_SECONDS = 60.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Access:
    """Who is calling. Keys are held in memory like tokens: while changes are heard of.

    ``admin_key`` is the bootstrap admin's, where the operator set one.
    """

    def __init__(
        self, database: Database, hearing: Hearing, clock: Clock, *, admin_key: str | None
    ) -> None:
        self._database = database
        self._clock = clock
        self._bootstrap = (
            Caller(BOOTSTRAP_ADMIN, frozenset({Scope.ADMIN}), ("*",), None, key_hash(admin_key))
            if admin_key
            else None
        )
        self._callers: HeardValues[bytes, Caller] = HeardValues(hearing, LARGEST_NUMBER_HELD)
        self._used: set[str] = set()
        self._use_noted: dict[str, float] = {}

    def forget(self, name: str) -> None:
        """The key of that name was revoked."""
        self._callers.drop_where(lambda caller: caller.name == name)

    def held(self, key: bytes) -> Caller | None:
        """The caller, if memory can tell without asking the database."""
        caller = self._callers.get(hashlib.sha256(key).digest())
        if caller is None or (caller.expires_at and caller.is_expired(self._clock.now())):
            return None
        self._used.add(caller.name)
        return caller

    async def authenticate(self, key: bytes) -> Caller:
        """Raises `Unauthenticated`, or `Unavailable` where nobody can tell."""
        return await self.authenticate_hash(hashlib.sha256(key).digest())

    async def authenticate_hash(self, hashed: bytes) -> Caller:
        if self._bootstrap is not None and is_same_secret(hashed, self._bootstrap.key_hash):
            return self._bootstrap
        caller = self._callers.get(hashed) or await self._find(hashed)
        if caller is None or not is_same_secret(caller.key_hash, hashed):
            raise Unauthenticated("This API key is unknown or was revoked.")
        if caller.is_expired(self._clock.now()):
            raise Unauthenticated("This API key has expired.", key=caller.name)
        self._used.add(caller.name)
        return caller

    async def _find(self, hashed: bytes) -> Caller | None:
        held = self._callers.get_unheard(hashed)
        mark = self._callers.mark()
        try:
            async with asyncio.timeout(None if held is None else PATIENCE_SECONDS):
                caller = await self._database.once(lambda c: api_keys.find(c, hashed))
        except (StorageError, TimeoutError) as error:
            if held is None:
                raise Unavailable(
                    "The database can't be used just now, so keys can't be checked."
                ) from error
            return held
        if caller is None:
            self._callers.drop(hashed)
        else:
            self._callers.put(hashed, caller, mark)
        return caller

    async def flush_use(self) -> None:
        """Writes down which keys were used, each at most once in `USE_NOTED_EVERY_SECONDS`."""
        now = self._clock.monotonic()
        used, self._used = self._used, set()
        names = {name for name in used if self._use_noted.get(name, 0.0) <= now}
        if names:
            await self._database.single(lambda c: api_keys.note_use(c, sorted(names)))
            self._use_noted.update(dict.fromkeys(names, now + USE_NOTED_EVERY_SECONDS))


async def create_key(
    database: Database,
    clock: Clock,
    *,
    name: str,
    scopes: Sequence[str],
    tenants: Sequence[str],
    expires_at: datetime | None,
    paths: Sequence[str] | None = None,
    actor: Actor,
) -> tuple[ApiKey, str]:
    """The key as it is listed, and the key itself, which is nowhere else.

    Raises `InvalidRequest` or `Conflict`.
    """
    check_key_request(name, scopes, tenants, paths)
    if expires_at is not None and expires_at <= clock.now():
        raise InvalidRequest("expires_at: lies in the past; give a moment to come.")
    rules = None if paths is None else list(dict.fromkeys(paths))
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    async with database.begin() as connection:
        api_key = await api_keys.create(
            connection,
            name=name,
            key_hash=key_hash(key),
            scopes=list(dict.fromkeys(scopes)),
            tenants=list(dict.fromkeys(tenants)),
            expires_at=expires_at,
            paths=rules,
        )
        if api_key is None:
            raise Conflict(f"name: a key called {name!r} exists; revoke it or take another name.")
        detail: dict[str, object] = {
            "key": name,
            "scopes": list(scopes),
            "tenants": list(tenants),
            "paths": rules,
        }
        await audit.append(
            connection,
            AuditEvent("api_key_create", "done", actor.name, None, actor.request_id, detail),
        )
    return api_key, key


def check_key_request(
    name: str, scopes: Sequence[str], tenants: Sequence[str], paths: Sequence[str] | None
) -> None:
    """Raises `InvalidRequest` naming the field and the mend."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest("name: letters, digits, '.', '_' and '-', at most 63 of them.")
    known = {scope.value for scope in Scope}
    if not scopes or not set(scopes) <= known:
        raise InvalidRequest(f"scopes: one or more of {', '.join(sorted(known))}.")
    if not tenants and "admin" not in scopes:
        raise InvalidRequest("tenants: name at least one, such as 'acme', 'beta-*' or '*'.")
    for pattern in tenants:
        if not is_tenant_pattern(pattern):
            raise InvalidRequest(f"tenants: {pattern!r} is no tenant id or pattern.")
    if paths is None:
        return
    try:
        check_rules(paths)
    except MalformedRule as error:
        raise InvalidRequest(f"paths: {error}") from None
    if set(scopes) != {Scope.PROXY}:
        raise InvalidRequest(
            "scopes: a key with paths has the scope 'proxy' alone, since any other gets round them."
        )


async def revoke_key(database: Database, name: str, actor: Actor) -> None:
    """Raises `NotFound`."""
    async with database.begin() as connection:
        if not await api_keys.revoke(connection, name):
            raise NotFound(f"No API key called {name!r}.")
        await audit.append(
            connection,
            AuditEvent("api_key_revoke", "done", actor.name, None, actor.request_id, {"key": name}),
        )


async def record_sign_in(database: Database, actor: Actor, action: str = "sign_in") -> None:
    """An admin's browser; ``action``: or ``sign_out``."""
    event = AuditEvent(action, "done", actor.name, None, actor.request_id)
    async with database.begin() as connection:
        await audit.append(connection, event)


async def list_keys(database: Database) -> list[ApiKey]:
    return await database.once(api_keys.list_all)


def key_hash(key: str) -> bytes:
    """Keys hold 256 random bits, so one round of SHA-256 keeps them."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
