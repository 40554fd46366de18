"""Hands tokens out: from memory in the common case, from the row, or after a refresh."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ignition_broker.bounded_map import BoundedMap
from ignition_broker.broker.change_feed import PATIENCE_SECONDS
from ignition_broker.broker.errors import (
    NotRenewable,
    ProviderFault,
    ProviderUnavailable,
    Unavailable,
)
from ignition_broker.broker.grants.refresh import Refresher
from ignition_broker.broker.grants.token_cache import TokenCache
from ignition_broker.broker.grants.token_requirements import WantedToken
from ignition_broker.clock import Clock
from ignition_broker.model import BROKER, Actor, IssuedToken
from ignition_broker.storage import grants
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError

MOST_USES_NOTED = 100_000
"""Tenants of which this process knows when their use was last written down."""


class Issuer:
    """Gives callers a token that lives for as long as they ask.

    ``lead_seconds``: how long before their expiry the background refresher renews the tokens of
    grants in use.
    """

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
        self._use_noted: BoundedMap[str, float] = BoundedMap(MOST_USES_NOTED)
        self._use_to_note: set[str] = set()

    def held(self, tenant: str, min_ttl_seconds: float) -> IssuedToken | None:
        """The token in memory if it lives for ``min_ttl_seconds``. This is the hot path."""
        token = self._cache.get(tenant)
        if token is None or not token.lives_for(min_ttl_seconds, self._clock.monotonic()):
            return None
        self._note_use(token)
        return token

    async def issue(
        self,
        tenant: str,
        *,
        min_ttl_seconds: float,
        at_worst_seconds: float | None = None,
        ending_seconds: float | None = None,
        actor: Actor = BROKER,
    ) -> IssuedToken:
        """A token that lives for ``min_ttl_seconds``.

        ``at_worst_seconds``: how long a token must live that is given while no new one can be had
        (default: ``min_ttl_seconds``). A caller who asks for more than Ignition's tokens ever live
        then gets any live token. ``ending_seconds``: the same for a grant without a refresh token
        (default: ``at_worst_seconds``). Raises the errors of `broker.errors`.
        """
        token = self.held(tenant, min_ttl_seconds)
        if token is not None:
            return token
        at_worst = min_ttl_seconds if at_worst_seconds is None else at_worst_seconds
        ending = at_worst if ending_seconds is None else ending_seconds
        current = None
        try:
            current = self._cache.get(tenant) or await self._read(tenant, at_worst)
            token = current
            if not token.lives_for(min_ttl_seconds, self._clock.monotonic()) and (
                token.is_renewable or not self._has_left(token, ending)
            ):
                want = WantedToken(token.version, min_ttl_seconds, on_callers_word=True)
                token = await self._refresher.renew(tenant, want, actor)
        except (ProviderUnavailable, ProviderFault, Unavailable):
            if current is None or not self._will_do(current, at_worst):
                raise
            token = current
        except NotRenewable:
            if current is None or not self._has_left(current, ending):
                raise
            token = current
        self._note_use(token)
        return token

    async def _read(self, tenant: str, at_worst_seconds: float) -> IssuedToken:
        """The stored token; if Postgres can't be asked, an older one from memory that will do."""
        held = self._cache.get_stale(tenant)
        if held is None or not self._will_do(held, at_worst_seconds):
            _grant, token = await self._refresher.read(tenant)
            return token
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                _grant, token = await self._refresher.read(tenant)
        except (Unavailable, TimeoutError):
            return held
        return token

    def _has_left(self, token: IssuedToken, seconds: float) -> bool:
        left = token.seconds_left(self._clock.monotonic())
        return left > 0 and left >= seconds

    def _will_do(self, token: IssuedToken, at_worst_seconds: float) -> bool:
        left = token.seconds_left(self._clock.monotonic())
        return left > 0 and (left >= at_worst_seconds or token.is_too_short_for(at_worst_seconds))

    async def renew(self, tenant: str, *, rejected_sha256: str, actor: Actor) -> IssuedToken:
        """Renews the token if the rejected one is still current, once for all callers who say so.

        ``rejected_sha256``: of the rejected token, in hexadecimal. Raises the errors of
        `broker.errors`; `RenewedTooOften` if callers have forced too many renewals of this tenant.
        """
        return await self._renew_rejected(
            tenant, WantedToken(0, rejected_sha256=rejected_sha256, on_callers_word=True), actor
        )

    async def renew_refused(self, tenant: str, *, rejected_sha256: str) -> IssuedToken:
        """As `renew`, for the built-in proxy, which has itself seen the API reject the token."""
        return await self._renew_rejected(
            tenant, WantedToken(0, rejected_sha256=rejected_sha256), BROKER
        )

    async def _renew_rejected(self, tenant: str, want: WantedToken, actor: Actor) -> IssuedToken:
        token = self._cache.get(tenant)
        if token is None:
            _grant, token = await self._refresher.read(tenant)
        want = replace(want, seen_version=token.version)
        if want.is_met_by(token, self._clock.monotonic()):
            return token
        if token.sha256 != want.rejected_sha256:
            # The caller has a newer token than this process knows, and must not get it again.
            _grant, token = await self._refresher.read(tenant)
            want = replace(want, seen_version=token.version)
        return await self._refresher.renew(tenant, want, actor)

    async def renew_anyway(self, tenant: str, actor: Actor) -> IssuedToken:
        """Renews for an admin, whatever the state of the current token. Raises the errors of
        `broker.errors`."""
        _grant, token = await self._refresher.read(tenant)
        return await self._refresher.renew(
            tenant, WantedToken(token.version, is_urgent=True), actor
        )

    def _note_use(self, token: IssuedToken) -> None:
        now = self._clock.monotonic()
        if self._use_noted.get(token.tenant, 0.0) <= now:
            self._use_noted.store(token.tenant, now + max(1.0, token.lifetime_seconds))
            self._use_to_note.add(token.tenant)

    async def flush_use(self) -> None:
        """Stores which grants were used since the last call; what can't be stored waits for the
        next."""
        tenants, self._use_to_note = self._use_to_note, set()
        if not tenants:
            return
        try:
            left = await self._database.single(
                lambda c: grants.note_use(c, sorted(tenants), lead_seconds=self._lead_seconds)
            )
        except StorageError:
            left = sorted(tenants)
        self._use_to_note.update(left)
