"""Sessions of admins' browsers: begun by an API key or a single sign-on, ended everywhere at once.

Nothing of a session is held in memory, so a sign-out counts on every replica from its commit on.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ignition_broker.broker.admins.bootstrap import BootstrapMarks
from ignition_broker.broker.admins.single_sign_on import Identity
from ignition_broker.broker.callers.access import Access
from ignition_broker.broker.callers.api_keys import BOOTSTRAP_ADMIN
from ignition_broker.broker.errors import SignOnFailed, Unauthenticated
from ignition_broker.model import AuditEvent, Caller, Scope
from ignition_broker.storage import audit, sessions
from ignition_broker.storage.database import Database

LIFETIME_SECONDS: Final = 8 * 3600
IDLE_SECONDS: Final = 30 * 60
FRESH_SECONDS: Final = 10 * 60
"""For how long after a sign-in what can't be undone needs no new one."""


@dataclass(frozen=True, slots=True)
class AdminSession:
    """``is_fresh``: whoever holds it proved lately who they are. ``token_hash``: what is stored of
    it."""

    caller: Caller
    csrf_token: str
    is_fresh: bool
    token_hash: bytes


class AdminSessions:
    """``bootstrap``: of the bootstrap admin key. ``issuer`` and ``admin_groups``: who signs admins
    on now, and which groups are theirs. A session that another setting began has ended."""

    def __init__(
        self,
        database: Database,
        access: Access,
        bootstrap: BootstrapMarks,
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
        """The new session's token; raises `Unauthenticated` for a key that is no admin's, or
        `TooManyAttempts`.

        ``address`` is where the browser is; ``replacing`` the token of the session that it showed,
        which ends.
        """
        # No JWT, which a session would outlive.
        caller = await self._access.authenticate_api_key(key.encode(), address)
        if not caller.may(Scope.ADMIN):
            raise Unauthenticated("This key is not an admin's.", key=caller.name)
        is_bootstrap = caller.name == BOOTSTRAP_ADMIN
        kept = self._bootstrap.newest if is_bootstrap else caller.key_hash
        origin = sessions.SessionOrigin(caller.name, key_hash=kept)
        token = await self._begin(origin, replacing, request_id, {"by": "key"})
        assert token is not None  # noqa: S101  # there is no sign-on that was used before
        return token

    async def sign_in_by_identity(
        self, identity: Identity, *, replacing: str | None, request_id: str | None
    ) -> str:
        """The new session's token; raises `SignOnFailed` where the sign-on was used before."""
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
        """The session, while its age, its idle time and what it was begun with are good."""
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
        async with self._database.begin() as connection:
            actor = await sessions.end(connection, _hash(token))
            if actor is not None:
                event = AuditEvent("sign_out", "done", actor, request_id=request_id)
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
    """Of use with this very session alone, and tells nothing of its token."""
    return hmac.new(token.encode(), b"csrf", hashlib.sha256).hexdigest()


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
