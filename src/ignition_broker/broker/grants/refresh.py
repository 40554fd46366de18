"""The refresh: read, claim, wait or ask, store. State lives in the grant's row.

No lock, transaction or connection is held while Ignition is asked, and nobody is given a token
that is not committed.
"""

from __future__ import annotations

from typing import assert_never

import structlog

from ignition_broker.broker.errors import (
    BrokerError,
    NotYetAnswered,
    ProviderUnavailable,
    RenewedTooOften,
    Unavailable,
)
from ignition_broker.broker.grants.circuit_breaker import CircuitBreaker
from ignition_broker.broker.grants.grant_reader import GrantReader
from ignition_broker.broker.grants.leases import Leases
from ignition_broker.broker.grants.outcomes import (
    NothingToServe,
    OutcomeRecorder,
    ReadAgain,
    TryAtOnce,
)
from ignition_broker.broker.grants.provider import Provider
from ignition_broker.broker.grants.read_repair import ReadRepair
from ignition_broker.broker.grants.single_flight import SingleFlight
from ignition_broker.broker.grants.token_cache import TokenCache
from ignition_broker.broker.grants.token_requests import TokenRequests
from ignition_broker.broker.grants.unrenewable import not_renewable
from ignition_broker.broker.grants.wakeups import Wakeups
from ignition_broker.broker.grants.wanted_token import (
    WantedToken,
    is_early,
    pause_before_asking,
    pause_between_early_renewals,
)
from ignition_broker.cipher import Cipher
from ignition_broker.clock import Clock
from ignition_broker.deadlines import is_done_within
from ignition_broker.model import Actor, Grant, IssuedToken, Lease, SealedLease
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError
from ignition_broker.storage.leases import STORE_HEAD_START_SECONDS

STORE_SECONDS = 5.0
"""How much longer than for Ignition a caller waits, for the answer to be stored."""
POLL_SECONDS = 0.25
LOCKED_ROW_SECONDS = STORE_HEAD_START_SECONDS + 1
"""How long a caller waits for a grant that is free and can't be claimed. After Postgres has started
that is so for `STORE_HEAD_START_SECONDS`; longer, and somebody else has the row locked."""
SYSTEM = Actor("broker")

log = structlog.get_logger(__name__)


class Refresher:
    """Renews grants, each once however many callers and replicas ask. ``longest_seconds``: what a
    refresh may take, while Postgres is there."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        provider: Provider,
        breaker: CircuitBreaker,
        cache: TokenCache,
        wakeups: Wakeups,
        clock: Clock,
        outcomes: OutcomeRecorder,
        repair: ReadRepair,
        *,
        owner: str,
    ) -> None:
        self._database = database
        self._timeout_seconds = provider.timeout_seconds
        self.longest_seconds = provider.patience_seconds + STORE_SECONDS
        self._breaker = breaker
        self._cache = cache
        self._wakeups = wakeups
        self._clock = clock
        self._outcomes = outcomes
        self._repair = repair
        self._grants = GrantReader(database, cipher, cache, repair)
        self.leases = Leases(database, cipher, clock, replica=owner)
        self.requests = TokenRequests(database, provider, outcomes, cache, clock)
        self.flights: SingleFlight[IssuedToken] = SingleFlight()

    async def renew(self, tenant: str, want: WantedToken, actor: Actor = SYSTEM) -> IssuedToken:
        """A token that meets ``want``, renewed if the stored one does not.

        A caller waits for Ignition for the provider's timeout, and for Postgres a little longer;
        one that goes away leaves the refresh running. Raises the errors of `broker.errors`.
        """
        asked_at = self._clock.monotonic()
        give_up_at = asked_at + self._timeout_seconds + STORE_SECONDS
        while True:
            flight = self.flights.current(tenant)
            is_mine = flight is None
            if flight is None:
                work = self._renew(tenant, want, actor)
                flight = self.flights.start(
                    tenant, work, must_renew=want.must_renew, min_ttl_seconds=want.min_ttl_seconds
                )
            if not await is_done_within(flight.task, give_up_at - self._clock.monotonic()):
                text = "The refresh that is under way takes longer than callers wait."
                raise NotYetAnswered(text, tenant=tenant)
            try:
                token = flight.task.result()
            except BrokerError as error:
                # What was refused to a caller who asked for something else does not bind this one.
                is_for_more = flight.min_ttl_seconds > want.min_ttl_seconds
                is_for_less = want.must_renew and not flight.must_renew
                # Whoever began the flight has waited for longer than who joined it.
                waited = self._clock.monotonic() - asked_at
                has_time = isinstance(error, NotYetAnswered) and waited < self._timeout_seconds
                # Callers' words are paced, and this one has more than that.
                is_paced = isinstance(error, RenewedTooOften) and not want.on_callers_word
                if is_mine or not (is_for_more or is_for_less or has_time or is_paced):
                    raise
                continue
            if want.is_met_by(token, self._clock.monotonic()):
                return token

    async def _renew(self, tenant: str, want: WantedToken, actor: Actor) -> IssuedToken:
        give_up_at = self._clock.monotonic() + self._timeout_seconds
        locked: tuple[int, float] | None = None
        while self._clock.monotonic() < give_up_at:
            grant, issued = await self._grants.read_alone(tenant)
            if want.is_met_by(issued, self._clock.monotonic()):
                return issued
            if not grant.is_renewable:
                raise await not_renewable(self._database, self._clock, issued)
            is_taken = grant.lease_is_held or self.requests.is_out(tenant, grant.version)
            if not is_taken:
                self._check_may_ask(grant, issued, want)
                lease = await self._claim(
                    grant, is_early=is_early(issued, want, self._clock.monotonic())
                )
                if lease is not None:
                    if want.must_renew or grant.is_uncertain or not lease.was_uncertain:
                        return await self.use(lease, actor)
                    # An answer was lost after the row was read: what that means is yet to be seen.
                    self._breaker.release()
                    await self._outcomes.given_back(lease)
                    continue
                self._breaker.release()
                now = self._clock.monotonic()
                if locked is None or locked[0] != grant.version:
                    locked = (grant.version, now)
                elif now - locked[1] > LOCKED_ROW_SECONDS:
                    break
            else:
                locked = None
            await self._wakeups.wait(tenant, POLL_SECONDS)
        if locked is not None:
            text = "The grant's row is locked in Postgres by somebody else."
            raise Unavailable(text, tenant=tenant)
        raise NotYetAnswered("The refresh that is under way did not end in time.", tenant=tenant)

    @property
    def is_settling(self) -> bool:
        """Whether nothing is to be renewed ahead of its time: the database may have gone back."""
        return self._repair.is_settling

    async def read(self, tenant: str) -> tuple[Grant, IssuedToken]:
        """The connected grant as it is stored; raises where there is none."""
        return await self._grants.read(tenant)

    def _check_may_ask(self, grant: Grant, issued: IssuedToken, want: WantedToken) -> None:
        if want.is_urgent:
            return
        now = self._clock.monotonic()
        pause = pause_between_early_renewals(grant, issued) if is_early(issued, want, now) else None
        kind = ProviderUnavailable if pause is None else RenewedTooOften
        # The breaker comes last: whoever passes it is its probe.
        pause = pause or pause_before_asking(grant, issued, want, now) or self._breaker.pause()
        if pause is not None:
            text = f"Ignition is not asked for a new token just now: {pause.reason}."
            raise kind(text, retry_after_seconds=pause.seconds, tenant=grant.tenant)

    async def _claim(self, grant: Grant, *, is_early: bool = False) -> Lease | None:
        try:
            return await self.leases.claim(grant, is_early=is_early)
        except StorageError as error:
            self._breaker.release()
            text = "The database can't be used just now."
            raise Unavailable(text, tenant=grant.tenant) from error

    async def use(self, lease: Lease, actor: Actor = SYSTEM) -> IssuedToken:
        """Asks Ignition with a lease that was claimed, and stores what it says.

        It stops waiting after the provider's timeout. The request goes on, and what comes of it is
        stored.
        """
        if self._repair.is_behind(lease):
            self._breaker.release()
            await self._outcomes.given_back(lease)
            await self._repair.check(lease.tenant)
            text = "Something newer than this grant's row is known of; it may be stored again."
            return await self._newer(lease, ProviderUnavailable(text, tenant=lease.tenant))
        if not lease.refresh_token.reveal():
            self._breaker.release()
            await self._outcomes.found_unrenewable(lease)
            _grant, issued = await self._grants.read_alone(lease.tenant)
            return issued
        request = self.requests.begin(lease, actor)
        if not await is_done_within(request.answered, self._timeout_seconds):
            log.warning("refresh_late", tenant=lease.tenant, version=lease.version)
            text = f"Ignition has not answered for {self._timeout_seconds:g} s."
            return await self._newer(lease, NotYetAnswered(text, tenant=lease.tenant))
        if not await is_done_within(request.settled, STORE_SECONDS):
            text = "Ignition's answer can't be stored just now."
            raise Unavailable(text, tenant=lease.tenant)
        settled = request.settled.result()
        match settled:
            case IssuedToken():
                return settled
            case ReadAgain():
                _grant, issued = await self._grants.read_alone(lease.tenant)
                return issued
            case TryAtOnce(failure=failure):
                grant, issued = await self._grants.read_alone(lease.tenant)
                again = await self._claim(grant) if issued.version == lease.version else None
                if again is not None:
                    return await self.use(again, actor)
                return await self._newer(lease, failure)
            case NothingToServe(failure=failure):
                raise failure
            case BrokerError():
                return await self._newer(lease, settled)
            case _:
                assert_never(settled)

    def give_back(self, lease: Lease | SealedLease) -> None:
        """Of a lease that is not going to be used; done in the background."""

        async def returned() -> IssuedToken:
            await self._outcomes.given_back(lease)
            raise ProviderUnavailable("This replica stops.", tenant=lease.tenant)

        self.flights.start(lease.tenant, returned())

    async def end(self, seconds: float) -> None:
        """Lets what is under way end, for at most ``seconds``: at a shutdown."""
        end_at = self._clock.monotonic() + seconds
        await self.flights.wait_all(seconds)
        await self.requests.end_all(end_at - self._clock.monotonic())

    async def _newer(self, lease: Lease, failure: BrokerError) -> IssuedToken:
        """What somebody else has stored meanwhile; raises ``failure`` where nobody has."""
        try:
            _grant, issued = await self._grants.read_alone(lease.tenant)
        except Unavailable:
            raise failure from None
        if issued.version > lease.version and issued.seconds_left(self._clock.monotonic()) > 0:
            return issued
        raise failure
