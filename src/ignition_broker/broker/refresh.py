"""The refresh: read, claim, wait or ask, store. State lives in the grant's row.

No lock, transaction or connection is held while Ignition is asked, and nobody is given a token
that is not committed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_never

import structlog

from ignition_broker.broker.cache import TokenCache
from ignition_broker.broker.errors import (
    NotConnected,
    ProviderFault,
    ProviderUnavailable,
    ReauthorizationRequired,
    Unavailable,
    UnknownTenant,
)
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
from ignition_broker.cipher import Cipher
from ignition_broker.clock import Clock
from ignition_broker.model import Actor, AuditEvent, Grant, GrantStatus, IssuedToken, Lease
from ignition_broker.oauth.tokens import RefreshToken
from ignition_broker.storage import grants
from ignition_broker.storage.engine import Database
from ignition_broker.storage.errors import StorageError, StorageUnavailable

log = structlog.get_logger(__name__)

LEASE_FACTOR = 3
"""The lease outlives the provider's timeout so many times."""
UNCERTAIN_RESERVE_SECONDS = 60.0
"""After a lost answer the refresh token is not used again while the access token has so long."""
POLL_SECONDS = 0.25
LONGEST_BACK_OFF_SECONDS = 300.0
_SYSTEM = Actor("broker")


@dataclass(frozen=True, slots=True)
class RefreshPolicy:
    lead_seconds: float
    keepalive_seconds: float

    def schedule(self, lifetime_seconds: float) -> grants.Schedule:
        """Ahead of expiry by the lead, at most half of the lifetime, spread by a tenth."""
        lead = min(self.lead_seconds, lifetime_seconds / 2) * random.uniform(0.9, 1.0)  # noqa: S311
        keepalive = self.keepalive_seconds * random.uniform(0.9, 1.0)  # noqa: S311
        return grants.Schedule(max(0.0, lifetime_seconds - lead), keepalive)


@dataclass(frozen=True, slots=True)
class Want:
    """What a caller needs of a token. A version above ``seen_version`` meets any want: nothing
    better is to be had than what Ignition has just given."""

    seen_version: int
    min_ttl_seconds: float = 0.0
    rejected_sha256: str | None = None
    is_urgent: bool = False

    def is_met_by(self, token: IssuedToken, now: datetime) -> bool:
        if token.version > self.seen_version:
            return True
        if self.is_urgent or token.sha256 == self.rejected_sha256:
            return False
        return token.lives_for(self.min_ttl_seconds, now)


class Notices:
    """Wakes those who wait for another replica's refresh."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}

    def ring(self, tenant: str) -> None:
        event = self._events.pop(tenant, None)
        if event is not None:
            event.set()

    async def wait(self, tenant: str, seconds: float) -> None:
        """Until the tenant's row changed, at most ``seconds``."""
        event = self._events.setdefault(tenant, asyncio.Event())
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            pass


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
        policy: RefreshPolicy,
        *,
        owner: str,
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._provider = provider
        self._cache = cache
        self._notices = notices
        self._clock = clock
        self._policy = policy
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
            await self._store_until_done(lambda c: grants.give_back(c, lease))
            raise Unavailable("The lease on the refresh token ran late.", tenant=lease.tenant)
        outcome: Outcome = await self._provider.refresh(lease.refresh_token)
        match outcome:
            case Renewed():
                return await self._renewed(lease, outcome, actor)
            case Refused():
                return await self._refused(lease, outcome, actor)
            case Misconfigured():
                error = f"{outcome.error}: {outcome.description}".rstrip(": ")
                await self._not_used(lease, "misconfigured", error, 30.0, actor)
                raise ProviderFault(
                    f"Ignition rejects this broker's client: {error}", tenant=lease.tenant
                )
            case NotSent():
                wait = await self._not_used(lease, "not_sent", outcome.reason, None, actor)
                raise ProviderUnavailable(
                    f"Ignition can't be reached: {outcome.reason}",
                    retry_after_seconds=wait,
                    tenant=lease.tenant,
                )
            case Throttled():
                error = f"status {outcome.status}"
                wait = await self._not_used(
                    lease, "throttled", error, outcome.retry_after_seconds, actor
                )
                raise ProviderUnavailable(
                    f"Ignition's token endpoint answers {error}.",
                    retry_after_seconds=wait,
                    tenant=lease.tenant,
                )
            case AnswerLost() | NoToken():
                return await self._lost(lease, outcome, actor)
            case _:
                assert_never(outcome)

    async def _renewed(self, lease: Lease, renewed: Renewed, actor: Actor) -> IssuedToken:
        answer = renewed.answer
        refresh_token = answer.refresh_token or lease.refresh_token
        scope = answer.scope if answer.scope is not None else lease.scope
        sealed = seal(self._cipher, lease.tenant, renewed, refresh_token, scope)
        error = None if answer.lifetime_seconds > 0 else "Ignition's token lives for 0 seconds"
        event = _event("refresh", "renewed", lease, actor, rotated=answer.refresh_token is not None)
        schedule = self._policy.schedule(
            sealed.lifetime_seconds if error is None else _back_off_seconds(lease.failures)
        )
        version = await self._store_renewed(lease, sealed, schedule, event, error)
        if version is None:
            log.warning("refresh_overtaken", tenant=lease.tenant, version=lease.version)
            _grant, issued = await self.read(lease.tenant)
            return issued
        issued = IssuedToken(
            lease.tenant,
            answer.access_token,
            answer.token_type,
            scope,
            sealed.expires_at,
            sealed.issued_at,
            version,
        )
        self._cache.replace(issued)
        log.info("grant_refreshed", tenant=lease.tenant, version=version)
        if error is not None:
            raise ProviderFault(error, tenant=lease.tenant)
        return issued

    async def _store_renewed(
        self,
        lease: Lease,
        sealed: grants.SealedTokens,
        schedule: grants.Schedule,
        event: AuditEvent,
        error: str | None,
    ) -> int | None:
        async def store(connection: Any) -> int | None:
            version = await grants.store_refreshed(
                connection, lease, sealed, schedule, event, error=error
            )
            if version is None and await grants.is_stored(connection, lease, sealed):
                return lease.version + 1
            return version

        version: int | None = await self._store_until_done(store)
        return version

    async def _refused(self, lease: Lease, refused: Refused, actor: Actor) -> IssuedToken:
        reason = refused.description or "invalid_grant"
        event = _event("refresh", "refused", lease, actor, reason=reason)
        await self._store_until_done(lambda c: grants.record_refusal(c, lease, reason, event))
        log.warning("grant_refused", tenant=lease.tenant, version=lease.version, reason=reason)
        self._cache.drop(lease.tenant)
        # Another version there means that somebody else renewed it, and all is well.
        _grant, issued = await self.read(lease.tenant)
        return issued

    async def _not_used(
        self, lease: Lease, outcome: str, error: str, retry_after: float | None, actor: Actor
    ) -> float:
        wait = max(retry_after or 0.0, _back_off_seconds(lease.failures))
        event = _event("refresh", outcome, lease, actor, error=error)
        await self._store_until_done(lambda c: grants.record_not_used(c, lease, error, wait, event))
        log.warning("refresh_failed", tenant=lease.tenant, outcome=outcome, error=error)
        return wait

    async def _lost(self, lease: Lease, outcome: AnswerLost | NoToken, actor: Actor) -> IssuedToken:
        is_live = lease.access_expires_at > self._clock.now()
        wait = _back_off_seconds(lease.failures)
        event = _event(
            "refresh",
            "answer_lost",
            lease,
            actor,
            reason=outcome.reason,
            access_token_is_live=is_live,
        )
        # The one try at once: nothing that still works can be lost by it.
        tries_at_once = not is_live and not lease.was_uncertain
        await self._store_until_done(
            lambda c: grants.record_answer_lost(
                c, lease, outcome.reason, 0.0 if tries_at_once else wait, event
            )
        )
        log.warning("refresh_answer_lost", tenant=lease.tenant, reason=outcome.reason)
        if tries_at_once and isinstance(outcome, AnswerLost):
            grant, issued = await self.read(lease.tenant)
            if issued.version != lease.version:
                return issued
            again = await self._claim(grant)
            if again is not None:
                return await self.use(again, actor)
        if isinstance(outcome, NoToken):
            raise ProviderFault(f"Ignition's answer: {outcome.reason}.", tenant=lease.tenant)
        raise ProviderUnavailable(
            f"Ignition did not answer: {outcome.reason}.",
            retry_after_seconds=wait,
            tenant=lease.tenant,
        )

    async def _store_until_done(self, work: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        """Ignition's answer is not thrown away while the process lives."""
        pause = 0.02
        while True:
            try:
                return await self._database.single(work)
            except StorageError as error:
                log.warning("refresh_store_failed", reason=str(error))
                await self._clock.sleep(pause)
                pause = min(pause * 2, 0.5)


def seal(
    cipher: Cipher, tenant: str, renewed: Renewed, refresh_token: RefreshToken, scope: str
) -> grants.SealedTokens:
    """Encrypted for the row."""
    return grants.SealedTokens(
        access_token=cipher.encrypt(tenant, "access_token", renewed.answer.access_token.reveal()),
        refresh_token=cipher.encrypt(tenant, "refresh_token", refresh_token.reveal()),
        token_type=renewed.answer.token_type,
        scope=scope,
        issued_at=renewed.requested_at,
        expires_at=renewed.requested_at + timedelta(seconds=renewed.answer.lifetime_seconds),
    )


def _back_off_seconds(failures: int) -> float:
    """Exponential with full jitter."""
    return random.uniform(0, min(LONGEST_BACK_OFF_SECONDS, 2.0 ** min(failures, 10)))  # noqa: S311


def _event(action: str, outcome: str, lease: Lease, actor: Actor, **detail: object) -> AuditEvent:
    return AuditEvent(
        action,
        outcome,
        actor.name,
        lease.tenant,
        actor.request_id,
        {"version": lease.version, "after_lost_answer": lease.was_uncertain, **detail},
    )
