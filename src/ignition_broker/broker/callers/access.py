"""Who is calling: an API key or a JWT is looked up by its hash, in memory or in the database.

`failed_attempts` limits wrong ones, `workload_identity` verifies JWTs, and `tenant_patterns` says
which tenants a caller covers.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from ignition_broker.broker.callers.api_keys import API_KEY_PREFIX, BOOTSTRAP_ADMIN, api_key_hash
from ignition_broker.broker.callers.failed_attempts import FailedAttempts, RefusedCredentials
from ignition_broker.broker.change_feed import PATIENCE_SECONDS, ChangeFeed, ChangeFeedCache
from ignition_broker.broker.errors import Unauthenticated, Unavailable
from ignition_broker.cipher import is_same_secret
from ignition_broker.clock import Clock
from ignition_broker.model import Caller, Scope
from ignition_broker.storage import api_keys
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError

if TYPE_CHECKING:
    # Its libraries take 50 ms to load, and few deployments have workloads.
    from ignition_broker.broker.callers.workload_identity import WorkloadIdentities

MOST_REMEMBERED = 10_000
USE_RECORDED_EVERY_SECONDS = 60.0
API_KEY_REFUSED_FOR_SECONDS = 60.0
JWT_REFUSED_FOR_SECONDS = 3.0
NO_ISSUERS = "This broker trusts no issuer of JWTs; an operator sets BROKER_JWT_ISSUERS."
EXPIRED_API_KEY = "This API key has expired, or was replaced by its successor."
UNKNOWN_API_KEY = "This API key is unknown or was revoked."


class Access:
    """Authenticates callers.

    What the database said of an API key is remembered by the key's hash, and believed only while
    the change feed is alive.

    Args:
        failed_attempts: limits wrong credentials by address.
        workloads: verifies JWTs; None: no JWT is accepted.
        admin_key: the bootstrap admin's API key, where the operator set one.
    """

    def __init__(
        self,
        database: Database,
        change_feed: ChangeFeed,
        clock: Clock,
        failed_attempts: FailedAttempts,
        workloads: WorkloadIdentities | None,
        *,
        admin_key: str | None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._failed_attempts = failed_attempts
        self._workloads = workloads
        self.bootstrap = (
            Caller(BOOTSTRAP_ADMIN, frozenset({Scope.ADMIN}), ("*",), None, api_key_hash(admin_key))
            if admin_key
            else None
        )
        self._callers: ChangeFeedCache[bytes, Caller] = ChangeFeedCache(
            change_feed, MOST_REMEMBERED
        )
        self._refused = RefusedCredentials(clock, MOST_REMEMBERED)
        self._used: set[str] = set()
        self._use_recorded_until: dict[str, float] = {}

    def from_memory(self, credential: bytes) -> Caller | None:
        """The caller who shows ``credential``; None where only `authenticate` can tell."""
        hashed = hashlib.sha256(credential).digest()
        caller = self._callers.get(hashed)
        if caller is None:
            return None if self._workloads is None else self._workloads.held(hashed)
        if caller.dies_at and caller.is_expired(self._clock.monotonic()):
            return None
        self._used.add(caller.name)
        return caller

    async def authenticate(self, credential: bytes, address: str | None) -> Caller:
        """The caller who shows ``credential``, an API key or a JWT.

        Args:
            address: where the call comes from; None where that is unknown.

        Raises:
            Unauthenticated: it is wrong, expired or revoked.
            TooManyAttempts: too many wrong ones came from ``address``.
            Forbidden: no rule is about this workload.
            Unavailable: the database, or a JWT's issuer, can't be asked just now.
        """
        hashed = hashlib.sha256(credential).digest()
        if not is_jwt(credential) or self._is_bootstrap(hashed):
            return await self.authenticate_api_key(credential, address)
        self._refused.check(hashed)
        try:
            return await self._authenticate_jwt(credential, hashed)
        except Unauthenticated as error:
            self._refused.remember(hashed, error.detail, JWT_REFUSED_FOR_SECONDS)
            # Counted only here: a valid JWT costs no query, so it passes even from an address that
            # is over its limit.
            with self._failed_attempts.limited(address):
                raise

    async def authenticate_api_key(self, api_key: bytes, address: str | None) -> Caller:
        """As `authenticate`, but a JWT is refused."""
        hashed = hashlib.sha256(api_key).digest()
        if self.bootstrap is not None and self._is_bootstrap(hashed):
            return self.bootstrap
        if self._callers.get_stale(hashed) is not None:
            return await self.authenticate_api_key_hash(hashed)
        self._refused.check(hashed)
        with self._failed_attempts.limited(address):
            return await self.authenticate_api_key_hash(hashed)

    async def authenticate_api_key_hash(self, hashed: bytes) -> Caller:
        """The caller whose API key has that SHA-256; for a session, whose reads are not limited.

        Never the bootstrap admin: sessions keep another hash of that key
        (`broker.admins.bootstrap`). Raises `Unauthenticated` or `Unavailable`.
        """
        caller = self._callers.get(hashed) or await self._find(hashed)
        if caller is None or not is_same_secret(caller.key_hash, hashed):
            raise Unauthenticated(UNKNOWN_API_KEY)
        if caller.is_expired(self._clock.monotonic()):
            raise Unauthenticated(EXPIRED_API_KEY, key=caller.name)
        self._used.add(caller.name)
        return caller

    def forget(self, name: str) -> None:
        """The API key of that name was revoked or replaced."""
        self._callers.drop_where(lambda caller: caller.name == name)

    def changes(self) -> int:
        """How many changes of API keys were heard of. Read it before a wait, for `confirm`."""
        return self._callers.drops

    async def confirm(self, caller: Caller, changes: int) -> None:
        """After a wait, checks that the caller's key was not revoked and did not expire meanwhile.

        Asks the database only if some key changed since ``changes`` was read. Raises
        `Unauthenticated` or `Unavailable`.
        """
        if caller.is_expired(self._clock.monotonic()):
            raise Unauthenticated(EXPIRED_API_KEY, key=caller.name)
        if caller.key_hash and self._callers.drops != changes:
            await self.authenticate_api_key_hash(caller.key_hash)

    async def flush_use(self) -> None:
        """Records which API keys were used, each at most once in `USE_RECORDED_EVERY_SECONDS`."""
        now = self._clock.monotonic()
        used, self._used = self._used, set()
        names = {name for name in used if self._use_recorded_until.get(name, 0.0) <= now}
        if not names:
            return
        try:
            locked = await self._database.single(lambda c: api_keys.note_use(c, sorted(names)))
        except StorageError:
            self._used |= names
            return
        self._used |= set(locked)
        recorded = names.difference(locked)
        self._use_recorded_until.update(dict.fromkeys(recorded, now + USE_RECORDED_EVERY_SECONDS))

    def _is_bootstrap(self, hashed: bytes) -> bool:
        return self.bootstrap is not None and is_same_secret(hashed, self.bootstrap.key_hash)

    async def _find(self, hashed: bytes) -> Caller | None:
        remembered = self._callers.get_stale(hashed)
        mark = self._callers.mark()
        asked_at = self._clock.monotonic()
        try:
            async with asyncio.timeout(None if remembered is None else PATIENCE_SECONDS):
                caller = await self._database.once(lambda c: api_keys.find(c, hashed, asked_at))
        except (StorageError, TimeoutError) as error:
            if remembered is None:
                raise Unavailable(
                    "The database can't be used just now, so keys can't be checked."
                ) from error
            return remembered
        if caller is None:
            self._callers.drop(hashed)
            # Keys are random and never reissued, so a miss can be remembered.
            self._refused.remember(hashed, UNKNOWN_API_KEY, API_KEY_REFUSED_FOR_SECONDS)
        else:
            self._callers.put(hashed, caller, mark)
        return caller

    async def _authenticate_jwt(self, token: bytes, hashed: bytes) -> Caller:
        if self._workloads is None:
            raise Unauthenticated(NO_ISSUERS)
        return await self._workloads.verify(token, hashed)


def is_jwt(credential: bytes) -> bool:
    """Whether it has a JWT's three parts (RFC 7515 section 7.1); an API key of ours has no dot."""
    return credential.count(b".") == 2 and not credential.startswith(API_KEY_PREFIX.encode())
