"""Refresh requests that Ignition is busy with, each until its answer is recorded.

A request goes on when its caller has stopped waiting, because its answer holds the only good
refresh token. Its lease is kept alive as long.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from ignition_broker.broker.grants.circuit_breaker import Permit
from ignition_broker.broker.grants.leases import LeaseKeeper
from ignition_broker.broker.grants.oauth_clients import OAuthClients
from ignition_broker.broker.grants.outcomes import OutcomeRecorder
from ignition_broker.broker.grants.refresh_results import RefreshResult
from ignition_broker.broker.grants.token_cache import TokenCache
from ignition_broker.broker.grants.token_outcomes import Outcome
from ignition_broker.clock import Clock
from ignition_broker.deadlines import is_done_within
from ignition_broker.model import Actor, IssuedToken, Lease
from ignition_broker.storage.database import Database

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """``answered`` is done when Ignition has answered or was given up, ``recorded`` when what came
    of it is stored. A caller that stops waiting must cancel neither."""

    answered: asyncio.Future[None]
    recorded: asyncio.Task[RefreshResult]


class TokenRequests:
    """The requests of this process, by tenant and version."""

    def __init__(
        self,
        database: Database,
        clients: OAuthClients,
        outcomes: OutcomeRecorder,
        cache: TokenCache,
        clock: Clock,
    ) -> None:
        self._database = database
        self._clients = clients
        self._outcomes = outcomes
        self._cache = cache
        self._clock = clock
        self._out: dict[tuple[str, int], asyncio.Task[RefreshResult]] = {}

    def begin(self, lease: Lease, permit: Permit, actor: Actor) -> TokenRequest:
        """Asks Ignition and records what it says, in the background.

        ``permit`` is held until Ignition has answered.
        """
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        recorded = asyncio.create_task(self._ask_and_record(lease, permit, actor, answered))
        key = lease.tenant, lease.version
        self._out[key] = recorded

        def ended(_task: asyncio.Task[RefreshResult]) -> None:
            if self._out.get(key) is recorded:
                del self._out[key]
            if not answered.done():
                answered.set_result(None)
            # An unforeseen error is logged here: its caller may be gone.
            if not recorded.cancelled() and (error := recorded.exception()) is not None:
                log.error("token_request_failed", tenant=lease.tenant, exc_info=error)

        recorded.add_done_callback(ended)
        return TokenRequest(answered, recorded)

    def is_out(self, tenant: str, version: int) -> bool:
        """Whether this process is using this version's refresh token; its lease may have run out
        while the process was stopped or could not reach Postgres."""
        recorded = self._out.get((tenant, version))
        return recorded is not None and not recorded.done()

    def tenants(self) -> list[str]:
        """Those of which a refresh token is in use."""
        return sorted({tenant for tenant, _version in self._out})

    async def end_all(self, seconds: float) -> None:
        """Waits until all are recorded, for at most ``seconds``."""
        if self._out:
            ending = asyncio.gather(*self._out.values(), return_exceptions=True)
            await is_done_within(ending, seconds)

    async def _ask_and_record(
        self, lease: Lease, permit: Permit, actor: Actor, answered: asyncio.Future[None]
    ) -> RefreshResult:
        keeper = LeaseKeeper(self._database, self._clock, lease)
        keeping = asyncio.create_task(keeper.run())
        try:
            with permit:
                outcome = await self._ask(lease, keeper)
            answered.set_result(None)
            # Before the store: a disconnect may be notified before the store's answer comes.
            mark = self._cache.mark()
            result = await self._outcomes.record(lease, outcome, actor)
            if isinstance(result, IssuedToken):
                self._cache.put(result, mark)
            return result
        finally:
            keeping.cancel()

    async def _ask(self, lease: Lease, keeper: LeaseKeeper) -> Outcome:
        if not keeper.may_send():
            # Its turn came late. If the lease can still be extended, nobody has claimed it since.
            await keeper.extend()
        provider = self._clients.of(lease.tenant).provider
        return await provider.refresh(lease.refresh_token, may_send=keeper.may_send)
