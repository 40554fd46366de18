"""Tokens handed out: from memory in the common case, from the row, or renewed."""

from __future__ import annotations

from ignition_broker.broker.cache import TokenCache
from ignition_broker.broker.errors import Unavailable
from ignition_broker.broker.refresh import Refresher
from ignition_broker.broker.want import Want
from ignition_broker.clock import Clock
from ignition_broker.model import Actor, IssuedToken
from ignition_broker.storage import grants
from ignition_broker.storage.engine import Database
from ignition_broker.storage.errors import StorageError

BROKER = Actor("broker")


class Issuer:
    """Gives callers a token that lives for as long as they ask."""

    def __init__(
        self,
        database: Database,
        cache: TokenCache,
        refresher: Refresher,
        clock: Clock,
        *,
        lead_seconds: float,
    ) -> None:
        self._database = database
        self._cache = cache
        self._refresher = refresher
        self._clock = clock
        self._lead_seconds = lead_seconds
        self._use_noted: dict[str, float] = {}
        self._use_to_note: set[str] = set()

    def held(self, tenant: str, min_ttl_seconds: float) -> IssuedToken | None:
        """What memory has, if it will do."""
        token = self._cache.get(tenant)
        if token is None or not token.lives_for(min_ttl_seconds, self._clock.now()):
            return None
        self._note_use(token)
        return token

    async def issue(
        self, tenant: str, *, min_ttl_seconds: float, actor: Actor | None = None
    ) -> IssuedToken:
        """Raises the errors of `broker.errors`."""
        token = self.held(tenant, min_ttl_seconds)
        if token is not None:
            return token

        now = self._clock.now()
        try:
            _grant, token = await self._refresher.read(tenant)
            want = Want(token.version, min_ttl_seconds)
            if not want.is_met_by(token, now):
                token = await self._refresher.renew(tenant, want, actor or BROKER)
        except Unavailable:
            kept = self._cache.get_unheard(tenant)
            if kept is None or not kept.lives_for(min_ttl_seconds, self._clock.now()):
                raise
            return kept
        self._note_use(token)
        return token

    async def renew(
        self, tenant: str, *, rejected_sha256: str, actor: Actor | None = None
    ) -> IssuedToken:
        """Renews if the rejected token is still the current one, once for all who say so."""
        token = self._cache.get(tenant)
        if token is None:
            _grant, token = await self._refresher.read(tenant)

        want = Want(token.version, rejected_sha256=rejected_sha256)
        if want.is_met_by(token, self._clock.now()):
            return token
        return await self._refresher.renew(tenant, want, actor or BROKER)

    async def renew_anyway(self, tenant: str, actor: Actor) -> IssuedToken:
        """For an admin who asks by hand, whatever the state of the current token."""
        _grant, token = await self._refresher.read(tenant)
        return await self._refresher.renew(tenant, Want(token.version, is_urgent=True), actor)

    def _note_use(self, token: IssuedToken) -> None:
        now = self._clock.monotonic()
        if self._use_noted.get(token.tenant, 0.0) <= now:
            self._use_noted[token.tenant] = now + max(1.0, token.lifetime_seconds)
            self._use_to_note.add(token.tenant)

    async def flush_use(self) -> None:
        """Writes down which grants were used since the last time."""
        tenants, self._use_to_note = self._use_to_note, set()
        if not tenants:
            return
        try:
            await self._database.single(
                lambda c: grants.note_use(c, sorted(tenants), lead_seconds=self._lead_seconds)
            )
        except StorageError:
            self._use_to_note |= tenants
