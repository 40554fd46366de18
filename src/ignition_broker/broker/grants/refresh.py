"""The refresh: read the row, claim a lease, ask Ignition or wait for whoever does, store.

Its state lives in the grant's row. No lock, transaction or connection is held while Ignition is
asked, and nobody is given a token that is not committed.
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
from ignition_broker.broker.grants.circuit_breaker import Pause, Permit
from ignition_broker.broker.grants.grant_reader import GrantReader
from ignition_broker.broker.grants.leases import Leases
from ignition_broker.broker.grants.oauth_clients import OAuthClients
from ignition_broker.broker.grants.outcomes import OutcomeRecorder
from ignition_broker.broker.grants.read_repair import ReadRepair
from ignition_broker.broker.grants.refresh_results import NothingToServe, ReadAgain, RetryNow
from ignition_broker.broker.grants.single_flight import SingleFlight
from ignition_broker.broker.grants.token_cache import TokenCache
from ignition_broker.broker.grants.token_requests import TokenRequests
from ignition_broker.broker.grants.token_requirements import (
    WantedToken,
    is_early,
    is_final,
    pause_before_asking,
    pause_between_early_renewals,
)
from ignition_broker.broker.grants.unrenewable import not_renewable
from ignition_broker.broker.grants.wakeups import Wakeups
from ignition_broker.cipher import Cipher
from ignition_broker.clock import Clock
from ignition_broker.deadlines import is_done_within
from ignition_broker.model import BROKER, Actor, Grant, IssuedToken, Lease
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError
from ignition_broker.storage.leases import STORE_HEAD_START_SECONDS

STORE_SECONDS = 5.0
"""How much longer than for Ignition's answer a caller waits, so that the answer can be stored."""
POLL_SECONDS = 0.25
"""How often a row is read again while somebody else refreshes it, if no change is notified."""
LOCKED_ROW_SECONDS = STORE_HEAD_START_SECONDS + 1
"""How long a caller waits for a grant that nobody has claimed and that can't be claimed either. For
`STORE_HEAD_START_SECONDS` after a start of Postgres that is normal; after that, somebody else has
the row locked."""

log = structlog.get_logger(__name__)


class Refresher:
    """Renews grants, each once however many callers and replicas ask for it.

    ``owner``: a name that no other process has. ``longest_seconds``: how long a refresh may take
    while Postgres is there.
    """

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        clients: OAuthClients,
        cache: TokenCache,
        wakeups: Wakeups,
        clock: Clock,
        outcomes: OutcomeRecorder,
        repair: ReadRepair,
        *,
        owner: str,
    ) -> None:
        self._database = database
        self._timeout_seconds = clients.timeout_seconds
        self.longest_seconds = clients.patience_seconds + STORE_SECONDS
        self._clients = clients
        self._wakeups = wakeups
        self._clock = clock
        self._outcomes = outcomes
        self._repair = repair
        self._grants = GrantReader(database, cipher, cache, repair)
        self.leases = Leases(database, cipher, clock, replica=owner)
        self.requests = TokenRequests(database, clients, outcomes, cache, clock)
        self.flights: SingleFlight[IssuedToken] = SingleFlight()

    async def renew(self, tenant: str, want: WantedToken, actor: Actor = BROKER) -> IssuedToken:
        """A token that meets ``want``: the stored one, or else a new one.

        A caller waits for Ignition for the provider's timeout and `STORE_SECONDS` longer for
        Postgres. The refresh goes on when its caller has gone. Raises the errors of
        `broker.errors`.
        """
        asked_at = self._clock.monotonic()
        give_up_at = asked_at + self._timeout_seconds + STORE_SECONDS
        while True:
            joined = self.flights.current(tenant)
            flight = joined or self.flights.start(
                tenant,
                self._renew(tenant, want, actor),
                must_renew=want.must_renew,
                min_ttl_seconds=want.min_ttl_seconds,
            )
            if not await is_done_within(flight.task, give_up_at - self._clock.monotonic()):
                raise NotYetAnswered(
                    "The refresh that is under way takes longer than callers wait.", tenant=tenant
                )
            try:
                token = flight.task.result()
            except BrokerError as error:
                has_time = self._clock.monotonic() - asked_at < self._timeout_seconds
                if joined is None or is_final(error, joined, want, has_time=has_time):
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
            if grant.lease_is_held or self.requests.is_out(tenant, grant.version):
                locked = None
            else:
                with self._permit(grant, issued, want) as permit:
                    early = is_early(issued, want, self._clock.monotonic())
                    lease = await self._claim(grant, is_early=early)
                    if lease is not None:
                        if want.must_renew or grant.is_uncertain or not lease.was_uncertain:
                            return await self.use(lease, permit, actor)
                        # An answer was lost after the row was read: whether to ask is decided anew.
                        await self.leases.give_back(lease)
                        continue
                now = self._clock.monotonic()
                if locked is None or locked[0] != grant.version:
                    locked = (grant.version, now)
                elif now - locked[1] > LOCKED_ROW_SECONDS:
                    break
            await self._wakeups.wait(tenant, POLL_SECONDS)
        if locked is not None:
            raise Unavailable(
                "The grant's row is locked in Postgres by somebody else.", tenant=tenant
            )
        raise NotYetAnswered("The refresh that is under way did not end in time.", tenant=tenant)

    @property
    def is_settling(self) -> bool:
        """Whether nothing is to be renewed ahead of its time: the database may have gone back."""
        return self._repair.is_settling

    async def read(self, tenant: str) -> tuple[Grant, IssuedToken]:
        """The connected grant as it is stored, and its token; see `GrantReader.read`."""
        return await self._grants.read(tenant)

    def _permit(self, grant: Grant, issued: IssuedToken, want: WantedToken) -> Permit:
        """Raises `ProviderUnavailable` while Ignition must not be asked for this grant."""
        breaker = self._clients.of(grant.tenant).breaker
        if want.is_urgent:
            return breaker.permit_regardless()
        now = self._clock.monotonic()
        pause = pause_between_early_renewals(grant, issued) if is_early(issued, want, now) else None
        kind = ProviderUnavailable if pause is None else RenewedTooOften
        # The breaker comes last, since its permit may be the one probe.
        asked = pause or pause_before_asking(grant, issued, want, now) or breaker.permit()
        if isinstance(asked, Pause):
            text = f"Ignition is not asked for a new token just now: {asked.reason}."
            raise kind(text, retry_after_seconds=asked.seconds, tenant=grant.tenant)
        return asked

    async def _claim(self, grant: Grant, *, is_early: bool = False) -> Lease | None:
        try:
            return await self.leases.claim(grant, is_early=is_early)
        except StorageError as error:
            raise Unavailable(
                "The database can't be used just now.", tenant=grant.tenant
            ) from error

    async def use(self, lease: Lease, permit: Permit, actor: Actor = BROKER) -> IssuedToken:
        """Asks Ignition with a claimed lease, stores what it says and returns the stored token.

        Stops waiting after the provider's timeout; the request then goes on, and its answer is
        stored. Raises the errors of `broker.errors`.
        """
        with permit:
            if self._repair.is_behind(lease):
                await self.leases.give_back(lease)
                await self._repair.check(lease.tenant)
                text = "Something newer than this grant's row is known of; it may be stored again."
                return await self._newer(lease, ProviderUnavailable(text, tenant=lease.tenant))
            if not lease.refresh_token.reveal():
                await self._outcomes.record_unrenewable(lease)
                _grant, issued = await self._grants.read_alone(lease.tenant)
                return issued
            return await self._ask(lease, permit, actor)

    async def _ask(self, lease: Lease, permit: Permit, actor: Actor) -> IssuedToken:
        request = self.requests.begin(lease, permit, actor)
        if not await is_done_within(request.answered, self._timeout_seconds):
            log.warning("refresh_late", tenant=lease.tenant, version=lease.version)
            text = f"Ignition has not answered for {self._timeout_seconds:g} s."
            return await self._newer(lease, NotYetAnswered(text, tenant=lease.tenant))
        if not await is_done_within(request.recorded, STORE_SECONDS):
            raise Unavailable("Ignition's answer can't be stored just now.", tenant=lease.tenant)
        result = request.recorded.result()
        match result:
            case IssuedToken():
                return result
            case ReadAgain():
                _grant, issued = await self._grants.read_alone(lease.tenant)
                return issued
            case RetryNow(failure=failure):
                grant, issued = await self._grants.read_alone(lease.tenant)
                again = await self._claim(grant) if issued.version == lease.version else None
                if again is not None:
                    return await self.use(again, permit, actor)
                return await self._newer(lease, failure)
            case NothingToServe(failure=failure):
                raise failure
            case BrokerError():
                return await self._newer(lease, result)
            case _:
                assert_never(result)

    async def _newer(self, lease: Lease, failure: BrokerError) -> IssuedToken:
        """The token that somebody else has stored meanwhile; raises ``failure`` if nobody has."""
        try:
            _grant, issued = await self._grants.read_alone(lease.tenant)
        except Unavailable:
            raise failure from None
        if issued.version > lease.version and issued.seconds_left(self._clock.monotonic()) > 0:
            return issued
        raise failure

    async def end(self, seconds: float) -> None:
        """At a shutdown: waits for what is under way, for at most ``seconds``."""
        end_at = self._clock.monotonic() + seconds
        await self.flights.wait_all(seconds)
        await self.requests.end_all(end_at - self._clock.monotonic())
        await self.leases.wait_given_back(end_at - self._clock.monotonic())
