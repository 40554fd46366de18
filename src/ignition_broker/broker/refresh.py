"""The refresh: read, claim, wait or ask, store. State lives in the grant's row.

No lock, transaction or connection is held while Ignition is asked, and nobody is given a token
that is not committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, assert_never

from ignition_broker.broker.cache import TokenCache
from ignition_broker.broker.errors import (
    BrokerError,
    NotConnected,
    ProviderFault,
    ProviderUnavailable,
    ReauthorizationRequired,
    Unavailable,
    UnknownTenant,
)
from ignition_broker.broker.notices import Notices
from ignition_broker.broker.outcomes import LIVES_FOR_NOTHING, Outcomes
from ignition_broker.broker.provider import (
    AnswerLost,
    Misconfigured,
    NoToken,
    NotSent,
    Outcome,
    Provider,
    Refused,
    Renewed,
    Throttled,
)
from ignition_broker.broker.want import Want
from ignition_broker.cipher import Cipher
from ignition_broker.clock import Clock
from ignition_broker.model import Actor, Grant, GrantStatus, IssuedToken, Lease
from ignition_broker.storage import grants
from ignition_broker.storage.engine import Database
from ignition_broker.storage.errors import StorageUnavailable

LEASE_FACTOR = 3
"""The lease outlives the provider's timeout so many times."""
UNCERTAIN_RESERVE_SECONDS = 60.0
"""After a lost answer the refresh token is not used again while the access token has so long."""
POLL_SECONDS = 0.25
_SYSTEM = Actor("broker")


class Refresher:
    """Renews grants, each once however many callers and replicas ask."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        provider: Provider,
        cache: TokenCache,
        notices: Notices,
        clock: Clock,
        outcomes: Outcomes,
        *,
        owner: str,
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._provider = provider
        self._cache = cache
        self._notices = notices
        self._clock = clock
        self._outcomes = outcomes
        self.owner = owner
        self.lease_seconds = LEASE_FACTOR * provider.timeout_seconds
        self._flights: dict[str, asyncio.Task[IssuedToken]] = {}

    async def renew(self, tenant: str, want: Want, actor: Actor = _SYSTEM) -> IssuedToken:
        """A token that meets ``want``, renewed if the stored one does not.

        A caller that goes away leaves the refresh running. Raises the errors of `broker.errors`.
        """
        deadline = self._clock.monotonic() + self._provider.timeout_seconds + 10
        while True:
            flight = self._flights.get(tenant)
            if flight is None:
                flight = self.fly(tenant, self._renew(tenant, want, actor))
            try:
                async with asyncio.timeout(max(0.1, deadline - self._clock.monotonic())):
                    token = await asyncio.shield(flight)
            except TimeoutError:
                raise Unavailable("The refresh is taking too long.", tenant=tenant) from None
            if want.is_met_by(token, self._clock.now()):
                return token

    def fly(
        self, tenant: str, refresh: Coroutine[Any, Any, IssuedToken]
    ) -> asyncio.Task[IssuedToken]:
        """Makes ``refresh`` the one that every caller of ``tenant`` in this process waits for."""
        flight = asyncio.create_task(refresh)
        self._flights[tenant] = flight

        def landed(task: asyncio.Task[IssuedToken]) -> None:
            if self._flights.get(tenant) is task:
                del self._flights[tenant]
            if not task.cancelled():
                task.exception()

        flight.add_done_callback(landed)
        return flight

    def is_flying(self, tenant: str) -> bool:
        return tenant in self._flights

    def may_ask(self) -> bool:
        """Whether the provider is worth a request now."""
        return self._provider.breaker.wait_seconds() == 0

    async def drain(self, seconds: float) -> None:
        """Lets what is under way finish and be stored."""
        if self._flights:
            await asyncio.wait(self._flights.values(), timeout=seconds)

    async def _renew(self, tenant: str, want: Want, actor: Actor) -> IssuedToken:
        give_up_at = self._clock.monotonic() + self.lease_seconds + self._provider.timeout_seconds
        while self._clock.monotonic() < give_up_at:
            grant, issued = await self.read(tenant)
            if want.is_met_by(issued, self._clock.now()):
                return issued
            if not grant.lease_is_held:
                if not want.is_urgent:
                    self._check_may_ask(grant, issued, want)
                lease = await self._claim(grant)
                if lease is not None:
                    return await self.use(lease, actor)
            await self._notices.wait(tenant, POLL_SECONDS)
        raise ProviderUnavailable("Another replica's refresh did not end.", tenant=tenant)

    async def read(self, tenant: str) -> tuple[Grant, IssuedToken]:
        """The connected grant as it is stored, put into the cache; raises where there is none."""
        mark = self._cache.mark()
        try:
            grant = await self._database.once(lambda c: grants.read(c, self._cipher, tenant))
        except StorageUnavailable as error:
            raise Unavailable("The database is away.", tenant=tenant) from error
        if grant is None:
            raise UnknownTenant(tenant)
        if grant.status is GrantStatus.REAUTHORIZATION_REQUIRED:
            raise ReauthorizationRequired(tenant, grant.last_error)
        if grant.status is GrantStatus.DISCONNECTED or grant.issued is None:
            raise NotConnected(tenant)
        self._cache.put(grant.issued, mark)
        return grant, grant.issued

    async def _claim(self, grant: Grant) -> Lease | None:
        use_before = self.use_before()
        try:
            return await self._database.single(
                lambda c: grants.claim(
                    c,
                    self._cipher,
                    tenant=grant.tenant,
                    version=grant.version,
                    owner=self.owner,
                    lease_seconds=self.lease_seconds,
                    use_before=use_before,
                )
            )
        except StorageUnavailable as error:
            raise Unavailable("The database is away.", tenant=grant.tenant) from error

    def use_before(self) -> float:
        """For a lease asked for now: counted from before the claim, so that the request's own
        deadline ends inside the lease whatever the claim took."""
        return self._clock.monotonic() + self.lease_seconds - 2 * self._provider.timeout_seconds

    def _check_may_ask(self, grant: Grant, issued: IssuedToken, want: Want) -> None:
        wait = self._provider.breaker.wait_seconds()
        reason = "too many requests to Ignition failed"
        if grant.is_uncertain and want.rejected_sha256 is None:
            # A second use of the refresh token may revoke the family, the live token with it.
            reserve = min(UNCERTAIN_RESERVE_SECONDS, issued.lifetime_seconds / 2)
            wait = max(wait, issued.seconds_left(self._clock.now()) - reserve)
            reason = "the answer to the last refresh was lost"
        if grant.failures and not (grant.is_uncertain and grant.failures == 1):
            wait = max(wait, grant.retry_in_seconds)
            reason = grant.last_error or reason
        if wait > 0:
            raise ProviderUnavailable(
                f"Ignition could not renew the token: {reason}.",
                retry_after_seconds=wait,
                tenant=grant.tenant,
            )

    async def use(self, lease: Lease, actor: Actor = _SYSTEM) -> IssuedToken:
        """Asks Ignition with a lease that was claimed, and stores what it says."""
        if not lease.refresh_token.reveal():
            return await self._refused(lease, Refused("Ignition gave no refresh token"), actor)
        if self._clock.monotonic() > lease.use_before:
            await self._outcomes.given_back(lease)
            raise Unavailable("The lease on the refresh token ran late.", tenant=lease.tenant)
        outcome: Outcome = await self._provider.refresh(lease.refresh_token)
        match outcome:
            case Renewed():
                return await self._renewed(lease, outcome, actor)
            case Refused():
                return await self._refused(lease, outcome, actor)
            case Misconfigured():
                reason = f"Ignition rejects this broker's client: {outcome.error}"
                error = f"{outcome.error}: {outcome.description}".rstrip(": ")
                await self._outcomes.not_used(lease, "misconfigured", error, 30.0, actor)
                return await self._newer(lease, ProviderFault(reason, tenant=lease.tenant))
            case NotSent():
                reason = f"Ignition can't be reached: {outcome.reason}"
                wait = await self._outcomes.not_used(lease, "not_sent", reason, None, actor)
                return await self._newer(lease, _unavailable(lease, reason, wait))
            case Throttled():
                reason = f"Ignition's token endpoint answers status {outcome.status}"
                wait = await self._outcomes.not_used(
                    lease, "throttled", reason, outcome.retry_after_seconds, actor
                )
                return await self._newer(lease, _unavailable(lease, reason, wait))
            case AnswerLost() | NoToken():
                return await self._lost(lease, outcome, actor)
            case _:
                assert_never(outcome)

    async def _renewed(self, lease: Lease, renewed: Renewed, actor: Actor) -> IssuedToken:
        issued = await self._outcomes.renewed(lease, renewed, actor)
        if issued is None:
            _grant, issued = await self.read(lease.tenant)
            return issued
        self._cache.replace(issued)
        if issued.lifetime_seconds <= 0:
            raise ProviderFault(LIVES_FOR_NOTHING, tenant=lease.tenant)
        return issued

    async def _refused(self, lease: Lease, refused: Refused, actor: Actor) -> IssuedToken:
        await self._outcomes.refused(lease, refused, actor)
        self._cache.drop(lease.tenant)
        # Another version there means that somebody else renewed it, and all is well.
        _grant, issued = await self.read(lease.tenant)
        return issued

    async def _lost(self, lease: Lease, outcome: AnswerLost | NoToken, actor: Actor) -> IssuedToken:
        is_live = lease.access_expires_at > self._clock.now()
        # The one try at once: nothing that still works can be lost by it.
        tries_at_once = not is_live and not lease.was_uncertain and isinstance(outcome, AnswerLost)
        wait = await self._outcomes.lost(
            lease, outcome.reason, actor, is_live=is_live, tries_at_once=tries_at_once
        )
        if tries_at_once:
            grant, issued = await self.read(lease.tenant)
            again = await self._claim(grant) if issued.version == lease.version else None
            if again is not None:
                return await self.use(again, actor)
        if isinstance(outcome, NoToken):
            fault = ProviderFault(f"Ignition's answer: {outcome.reason}.", tenant=lease.tenant)
            return await self._newer(lease, fault)
        reason = f"Ignition did not answer: {outcome.reason}"
        return await self._newer(lease, _unavailable(lease, reason, wait))

    async def _newer(self, lease: Lease, failure: BrokerError) -> IssuedToken:
        """What somebody else has stored meanwhile; raises ``failure`` where nobody has."""
        try:
            _grant, issued = await self.read(lease.tenant)
        except Unavailable:
            raise failure from None
        if issued.version > lease.version:
            return issued
        raise failure


def _unavailable(lease: Lease, reason: str, wait: float) -> ProviderUnavailable:
    return ProviderUnavailable(f"{reason}.", retry_after_seconds=wait, tenant=lease.tenant)
