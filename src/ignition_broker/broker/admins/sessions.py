"""Sessions of admins' browsers, begun by an API key or by single sign-on.

Nothing of a session is held in memory, so a sign-out counts on every replica once it is committed.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ignition_broker.broker.admins.bootstrap import BootstrapKeyHashes
from ignition_broker.broker.admins.single_sign_on import Identity
from ignition_broker.broker.callers.access import Access
from ignition_broker.broker.callers.api_keys import BOOTSTRAP_ADMIN
from ignition_broker.broker.errors import NotFound, SignOnFailed, Unauthenticated
from ignition_broker.cipher import secret_hash
from ignition_broker.model import Actor, AuditEvent, Caller, Scope
from ignition_broker.storage import audit, sessions
from ignition_broker.storage.database import Database

LIFETIME_SECONDS: Final = 8 * 3600
IDLE_SECONDS: Final = 30 * 60
FRESH_SECONDS: Final = 10 * 60
"""For so long after a sign-in, what can't be undone is allowed without signing in again."""


@dataclass(frozen=True, slots=True)
class AdminSession:
    """A live session.

    Attributes:
        csrf_token: what this session's forms must carry.
        is_fresh: the admin signed in during the last `FRESH_SECONDS`.
        token_hash: by which the session is stored.
    """

    caller: Caller
    csrf_token: str
    is_fresh: bool
    token_hash: bytes


class AdminSessions:
    """Begins, reads and ends sessions.

    Args:
        issuer: the identity provider that signs admins on, where there is one.
        admin_groups: its groups whose members are admins.

    A session ends with what began it: the API key, the bootstrap admin key, the issuer or the
    groups of the settings.
    """

    def __init__(
        self,
        database: Database,
        access: Access,
        bootstrap: BootstrapKeyHashes,
        *,
        issuer: str | None = None,
        admin_groups: Sequence[str] = (),
    ) -> None:
        self._database = database
        self._access = access
        self._bootstrap = bootstrap
        self._issuer = issuer
        self._admin_groups = frozenset(admin_groups)

    async def sign_in_by_key(
        self, key: str, address: str | None, *, replacing: str | None, request_id: str | None
    ) -> str:
        """Begins a session by an admin's API key.

        Args:
            address: where the browser is; None where that is unknown.
            replacing: the token of the session that the browser showed; that session ends.

        Returns:
            The new session's token.

        Raises:
            Unauthenticated: the key is wrong, expired, revoked or no admin's.
            TooManyAttempts: too many wrong keys came from ``address``.
            Unavailable: the database can't be used just now.
        """
        # No JWT: the session would outlive it.
        caller = await self._access.authenticate_api_key(key.encode(), address)
        if not caller.may(Scope.ADMIN):
            raise Unauthenticated("This key is not an admin's.", key=caller.name)
        is_bootstrap = caller.name == BOOTSTRAP_ADMIN
        stored_hash = self._bootstrap.newest if is_bootstrap else caller.key_hash
        origin = sessions.SessionOrigin(caller.name, key_hash=stored_hash)
        token = await self._begin(origin, replacing, request_id, {"by": "key"})
        assert token is not None  # noqa: S101  # only a sign-on can have been used before
        return token

    async def sign_in_by_identity(
        self, identity: Identity, *, replacing: str | None, request_id: str | None
    ) -> str:
        """Begins a session of the person who signed on; ``replacing`` as in `sign_in_by_key`.

        Returns the new session's token. Raises `SignOnFailed` where the sign-on was used before.
        """
        origin = sessions.SessionOrigin(
            identity.actor,
            issuer=identity.issuer,
            groups=identity.admin_groups,
            sign_on_hash=identity.sign_on_hash,
            authenticated_seconds_ago=identity.authenticated_seconds_ago,
        )
        detail: dict[str, object] = {
            "by": "single sign-on",
            "issuer": identity.issuer,
            "subject": identity.subject,
        }
        token = await self._begin(origin, replacing, request_id, detail)
        if token is None:
            raise SignOnFailed("This sign-in was used before; each works once.")
        return token

    async def read(self, token: str) -> AdminSession | None:
        """The session of that token; None where it has ended. A read counts as a use.

        Raises `Unavailable`, or the errors of `storage.errors`.
        """
        live = await self._database.once(
            lambda c: sessions.use(
                c,
                _hash(token),
                idle_seconds=IDLE_SECONDS,
                lifetime_seconds=LIFETIME_SECONDS,
                fresh_seconds=FRESH_SECONDS,
            )
        )
        caller = None if live is None else await self._caller(live)
        if live is None or caller is None or not caller.may(Scope.ADMIN):
            return None
        return AdminSession(caller, _csrf_token(token), live.is_fresh, _hash(token))

    async def sign_out(self, token: str, *, request_id: str | None) -> None:
        """Ends the session, if it has not ended before."""
        async with self._database.begin() as connection:
            actor = await sessions.end(connection, _hash(token))
            if actor is not None:
                event = AuditEvent("sign_out", "done", actor, request_id=request_id)
                await audit.append(connection, event)

    async def every(self) -> Sequence[sessions.ListedSession]:
        """The sessions of all admins that have not ended, newest first. One whose key was revoked,
        or whose group lost its rights, is among them: it is turned away when it is used."""
        return await self._database.once(
            lambda c: sessions.live(c, idle_seconds=IDLE_SECONDS, lifetime_seconds=LIFETIME_SECONDS)
        )

    async def end(self, token_hash: bytes, actor: Actor) -> None:
        """Ends any admin's session. Raises `NotFound` where it has ended before."""
        async with self._database.begin() as connection:
            whose = await sessions.end(connection, token_hash)
            if whose is None:
                raise NotFound("This session has ended already.")
            detail: dict[str, object] = {"session_of": whose}
            event = AuditEvent("session_end", "done", actor.name, None, actor.request_id, detail)
            await audit.append(connection, event)

    async def _caller(self, live: sessions.LiveSession) -> Caller | None:
        if live.key_hash is not None:
            if live.key_hash in self._bootstrap:
                return self._access.bootstrap
            try:
                return await self._access.authenticate_api_key_hash(live.key_hash)
            except Unauthenticated:
                return None
        if live.issuer != self._issuer or self._admin_groups.isdisjoint(live.groups):
            return None
        return Caller(live.actor, frozenset({Scope.ADMIN}), ("*",))

    async def _begin(
        self,
        origin: sessions.SessionOrigin,
        replacing: str | None,
        request_id: str | None,
        detail: dict[str, object],
    ) -> str | None:
        token = secrets.token_urlsafe(32)
        async with self._database.begin() as connection:
            if not await sessions.begin(connection, _hash(token), origin):
                return None
            if replacing is not None:
                await sessions.end(connection, _hash(replacing))
            event = AuditEvent("sign_in", "done", origin.actor, None, request_id, detail)
            await audit.append(connection, event)
        return token


def _csrf_token(token: str) -> str:
    """Valid for this session alone; its token can't be computed from it."""
    return hmac.new(token.encode(), b"csrf", hashlib.sha256).hexdigest()


def _hash(token: str) -> bytes:
    return secret_hash(token)
