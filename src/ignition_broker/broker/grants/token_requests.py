"""Refresh requests that are out at Ignition, each until what it answers is recorded.

A request goes on when whoever asked for it has stopped waiting, since its answer holds the only
good refresh token. Its lease is kept alive as long.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from ignition_broker.broker.grants.leases import LeaseKeeper
from ignition_broker.broker.grants.outcomes import OutcomeRecorder, Settled
from ignition_broker.broker.grants.provider import Provider
from ignition_broker.broker.grants.token_cache import TokenCache
from ignition_broker.broker.grants.token_outcomes import Outcome
from ignition_broker.clock import Clock
from ignition_broker.deadlines import is_done_within
from ignition_broker.model import Actor, IssuedToken, Lease
from ignition_broker.storage.database import Database

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """``answered`` is done when Ignition's answer is there, or will not come; ``settled`` when what
    it said is recorded. Whoever stops waiting must cancel neither."""

    answered: asyncio.Future[None]
    settled: asyncio.Task[Settled]


class TokenRequests:
    """This process's, by tenant and version."""

    def __init__(
        self,
        database: Database,
        provider: Provider,
        outcomes: OutcomeRecorder,
        cache: TokenCache,
        clock: Clock,
    ) -> None:
        self._database = database
        self._provider = provider
        self._outcomes = outcomes
        self._cache = cache
        self._clock = clock
        self._out: dict[tuple[str, int], asyncio.Task[Settled]] = {}

    def begin(self, lease: Lease, actor: Actor) -> TokenRequest:
        """Asks Ignition and records what it says."""
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        settled = asyncio.create_task(self._ask_and_record(lease, actor, answered))
        place = lease.tenant, lease.version
        self._out[place] = settled

        def ended(_task: asyncio.Task[Settled]) -> None:
            if self._out.get(place) is settled:
                del self._out[place]
            if not answered.done():
                answered.set_result(None)
            # There may be nobody left to see what nobody thought of.
            if not settled.cancelled() and (error := settled.exception()) is not None:
                log.error("token_request_failed", tenant=lease.tenant, exc_info=error)

        settled.add_done_callback(ended)
        return TokenRequest(answered, settled)

    def is_out(self, tenant: str, version: int) -> bool:
        """Whether this version's refresh token is in use, though its lease may have run out while
        this process was stopped or could not reach Postgres."""
        settled = self._out.get((tenant, version))
        return settled is not None and not settled.done()

    def tenants(self) -> list[str]:
        return sorted({tenant for tenant, _version in self._out})

    async def end_all(self, seconds: float) -> None:
        """Lets what is out end, for at most ``seconds``."""
        if self._out:
            ending = asyncio.gather(*self._out.values(), return_exceptions=True)
            await is_done_within(ending, seconds)

    async def _ask_and_record(
        self, lease: Lease, actor: Actor, answered: asyncio.Future[None]
    ) -> Settled:
        keeper = LeaseKeeper(self._database, self._clock, lease)
        keeping = asyncio.create_task(keeper.run())
        try:
            outcome = await self._ask(lease, keeper)
            answered.set_result(None)
            # Ahead of the store: a disconnect may be heard of before the store's answer comes.
            mark = self._cache.mark()
            settled = await self._outcomes.record(lease, outcome, actor)
            if isinstance(settled, IssuedToken):
                self._cache.put(settled, mark)
            return settled
        finally:
            keeping.cancel()

    async def _ask(self, lease: Lease, keeper: LeaseKeeper) -> Outcome:
        if not keeper.may_send():
            # Its turn came late. If it can still be extended, nobody has used it meanwhile.
            await keeper.extend()
        return await self._provider.refresh(lease.refresh_token, may_send=keeper.may_send)
