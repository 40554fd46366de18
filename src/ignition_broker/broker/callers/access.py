"""API keys: made, shown once, looked up by hash, revoked everywhere at once."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ignition_broker.broker.callers.entitlements import check_entitlements
from ignition_broker.broker.callers.failed_attempts import Attempts, Refusals
from ignition_broker.broker.change_feed import PATIENCE_SECONDS, ChangeFeed, ChangeFeedCache
from ignition_broker.broker.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from ignition_broker.cipher import is_same_secret
from ignition_broker.clock import Clock
from ignition_broker.model import Actor, ApiKey, AuditEvent, Caller, Scope
from ignition_broker.storage import api_keys, audit
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError

if TYPE_CHECKING:
    # What it stands on takes a twentieth of a second to load, and few have workloads.
    from ignition_broker.broker.callers.workload_identity import WorkloadIdentities

KEY_PREFIX = "ibk_"
BOOTSTRAP_ADMIN = "bootstrap-admin"
RESERVED_NAMES = frozenset({BOOTSTRAP_ADMIN, "broker", "cli", "dev", "unknown"})
"""Actors that are no key; a key so called would act in their name."""
LARGEST_NUMBER_HELD = 10_000
USE_NOTED_EVERY_SECONDS = 60.0
REFUSED_FOR_SECONDS = 60.0
JWT_REFUSED_FOR_SECONDS = 3.0
NO_ISSUERS = "This broker trusts no issuer of JWTs; an operator sets BROKER_JWT_ISSUERS."
ENDED_KEY = "This API key has expired, or was replaced by its successor."
UNKNOWN_KEY = "This API key is unknown or was revoked."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Access:
    """Who is calling. Keys are held in memory like tokens: while changes are heard of.

    ``admin_key`` is the bootstrap admin's, where the operator set one.
    """

    def __init__(
        self,
        database: Database,
        change_feed: ChangeFeed,
        clock: Clock,
        attempts: Attempts,
        workloads: WorkloadIdentities | None,
        *,
        admin_key: str | None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._attempts = attempts
        self._workloads = workloads
        self.bootstrap = (
            Caller(BOOTSTRAP_ADMIN, frozenset({Scope.ADMIN}), ("*",), None, key_hash(admin_key))
            if admin_key
            else None
        )
        self._callers: ChangeFeedCache[bytes, Caller] = ChangeFeedCache(
            change_feed, LARGEST_NUMBER_HELD
        )
        self._refusals = Refusals(clock, LARGEST_NUMBER_HELD)
        self._used: set[str] = set()
        self._use_noted: dict[str, float] = {}

    def forget(self, name: str) -> None:
        """The key of that name was revoked."""
        self._callers.drop_where(lambda caller: caller.name == name)

    def changes(self) -> int:
        """How many changes of keys were heard of; to be read ahead of a wait, for `confirm`."""
        return self._callers.drops

    async def confirm(self, caller: Caller, changes: int) -> None:
        """After a wait: raises `Unauthenticated` where the key was revoked or ended meanwhile.

        Asks the database only where a change of some key was heard of since ``changes`` was read.
        """
        if caller.is_expired(self._clock.monotonic()):
            raise Unauthenticated(ENDED_KEY, key=caller.name)
        if caller.key_hash and self._callers.drops != changes:
            await self.authenticate_hash(caller.key_hash)

    def held(self, key: bytes) -> Caller | None:
        """The caller, if memory can tell without asking the database."""
        hashed = hashlib.sha256(key).digest()
        caller = self._callers.get(hashed)
        if caller is None:
            return None if self._workloads is None else self._workloads.held(hashed)
        if caller.dies_at and caller.is_expired(self._clock.monotonic()):
            return None
        self._used.add(caller.name)
        return caller

    async def authenticate(self, key: bytes, address: str | None) -> Caller:
        """By an API key or a JWT; ``address``: where the call comes from.

        Raises `Unauthenticated`, `TooManyAttempts`, or `Unavailable` where nobody can tell; and
        `Forbidden` for a workload that no rule is about.
        """
        hashed = hashlib.sha256(key).digest()
        if not is_jwt(key) or self._is_bootstrap(hashed):
            return await self.authenticate_key(key, address)
        self._refusals.check(hashed)
        try:
            return await self._verified(key, hashed)
        except Unauthenticated as error:
            self._refusals.remember(hashed, error.detail, JWT_REFUSED_FOR_SECONDS)
            # Only now: a good one costs no look-up, and so is let through whatever its address did.
            with self._attempts.attempt(address):
                raise

    async def authenticate_key(self, key: bytes, address: str | None) -> Caller:
        """By an API key alone. Raises as `authenticate` does."""
        hashed = hashlib.sha256(key).digest()
        if self.bootstrap is not None and self._is_bootstrap(hashed):
            return self.bootstrap
        if self._callers.get_stale(hashed) is not None:
            return await self.authenticate_hash(hashed)
        self._refusals.check(hashed)
        with self._attempts.attempt(address):
            return await self.authenticate_hash(hashed)

    async def authenticate_hash(self, hashed: bytes) -> Caller:
        """An API key's, for a session, whose tries are not limited. The bootstrap admin's is none:
        what sessions hold of that key is another hash (`broker.admins.bootstrap`)."""
        caller = self._callers.get(hashed) or await self._find(hashed)
        if caller is None or not is_same_secret(caller.key_hash, hashed):
            raise Unauthenticated(UNKNOWN_KEY)
        if caller.is_expired(self._clock.monotonic()):
            raise Unauthenticated(ENDED_KEY, key=caller.name)
        self._used.add(caller.name)
        return caller

    def _is_bootstrap(self, hashed: bytes) -> bool:
        return self.bootstrap is not None and is_same_secret(hashed, self.bootstrap.key_hash)

    async def _find(self, hashed: bytes) -> Caller | None:
        held = self._callers.get_stale(hashed)
        mark = self._callers.mark()
        asked_at = self._clock.monotonic()
        try:
            async with asyncio.timeout(None if held is None else PATIENCE_SECONDS):
                caller = await self._database.once(lambda c: api_keys.find(c, hashed, asked_at))
        except (StorageError, TimeoutError) as error:
            if held is None:
                raise Unavailable(
                    "The database can't be used just now, so keys can't be checked."
                ) from error
            return held
        if caller is None:
            self._callers.drop(hashed)
            # Keys are random and never given twice: one that is not there will not come to be.
            self._refusals.remember(hashed, UNKNOWN_KEY, REFUSED_FOR_SECONDS)
        else:
            self._callers.put(hashed, caller, mark)
        return caller

    async def _verified(self, token: bytes, hashed: bytes) -> Caller:
        if self._workloads is None:
            raise Unauthenticated(NO_ISSUERS)
        return await self._workloads.verify(token, hashed)

    async def flush_use(self) -> None:
        """Writes down which keys were used, each at most once in `USE_NOTED_EVERY_SECONDS`."""
        now = self._clock.monotonic()
        used, self._used = self._used, set()
        names = {name for name in used if self._use_noted.get(name, 0.0) <= now}
        if not names:
            return
        try:
            locked = await self._database.single(lambda c: api_keys.note_use(c, sorted(names)))
        except StorageError:
            self._used |= names
            return
        self._used |= set(locked)
        noted = names.difference(locked)
        self._use_noted.update(dict.fromkeys(noted, now + USE_NOTED_EVERY_SECONDS))


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
    if expires_at is not None:
        expires_at = expiry_to_come(expires_at, clock.now())
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
    if name.lower() in RESERVED_NAMES:
        raise InvalidRequest(f"name: {name!r} is somebody else's in the audit trail; take another.")
    check_entitlements(scopes, tenants, paths)


def expiry_to_come(expires_at: datetime, now: datetime) -> datetime:
    """In UTC, as the driver would reckon it past any check. Raises `InvalidRequest`."""
    try:
        expires_at = expires_at.astimezone(UTC)
    except OverflowError:
        raise InvalidRequest("expires_at: is outside the years 1 to 9999 in UTC.") from None
    if expires_at <= now:
        raise InvalidRequest("expires_at: lies in the past; give a moment to come.")
    return expires_at


async def revoke_key(database: Database, name: str, actor: Actor) -> None:
    """Raises `NotFound`."""
    async with database.begin() as connection:
        if not await api_keys.revoke(connection, name):
            raise NotFound(f"No API key called {name!r}.")
        await audit.append(
            connection,
            AuditEvent("api_key_revoke", "done", actor.name, None, actor.request_id, {"key": name}),
        )


async def list_keys(database: Database) -> list[ApiKey]:
    return await database.once(api_keys.list_all)


def is_jwt(key: bytes) -> bool:
    """By its three parts (RFC 7515 section 7.1); no key of ours has a dot."""
    return key.count(b".") == 2 and not key.startswith(KEY_PREFIX.encode())


def key_hash(key: str) -> bytes:
    """Keys hold 256 random bits, so one round of SHA-256 keeps them."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
