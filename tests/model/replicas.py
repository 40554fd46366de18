"""A replica: the real refresh, wired as `app` wires it, on a loop, a database and a wire of its
own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

from ignition_broker.broker.background import BackgroundRefresher
from ignition_broker.broker.callers.access import Access
from ignition_broker.broker.change_feed import ChangeFeed
from ignition_broker.broker.grants.circuit_breaker import CircuitBreaker
from ignition_broker.broker.grants.due_renewals import DueRenewals
from ignition_broker.broker.grants.held_grants import HeldGrants
from ignition_broker.broker.grants.ignition_client import Endpoints
from ignition_broker.broker.grants.issue import Issuer
from ignition_broker.broker.grants.oauth_clients import OAuthClient, OAuthClients
from ignition_broker.broker.grants.outcomes import OutcomeRecorder
from ignition_broker.broker.grants.provider import Provider, Registration
from ignition_broker.broker.grants.read_repair import ReadRepair
from ignition_broker.broker.grants.refresh import Refresher
from ignition_broker.broker.grants.refresh_policy import RefreshPolicy
from ignition_broker.broker.grants.revocations import Revocations
from ignition_broker.broker.grants.row_repair import RowRepair
from ignition_broker.broker.grants.token_cache import TokenCache
from ignition_broker.broker.grants.wakeups import Wakeups
from ignition_broker.cipher import Cipher
from ignition_broker.grant_ids import DEFAULT_CLIENT
from ignition_broker.model import GrantStatus
from ignition_broker.oauth.requests import client_secret_post
from ignition_broker.oauth.tokens import ClientSecret
from ignition_broker.storage.database import Database
from tests.model.ignition import PATIENCE_SECONDS
from tests.model.loop import SimulatedClock, SimulatedLoop
from tests.model.world import Notice, World

TENANT = "acme"
TIMEOUT_SECONDS = 2.0
LEAD_SECONDS = 10.0
KEEPALIVE_SECONDS = 600.0
REMEMBER_SECONDS = 600.0
SECRET = ClientSecret("secret")
REGISTRATION = Registration(
    client_id="broker",
    client_secret=SECRET,
    redirect_uri="http://broker.test/callback",
    scope="",
    authorize_url="http://ignition.test/authorize",
    token_url="http://ignition.test/token",
    revoke_url="http://ignition.test/revoke",
    authenticate=client_secret_post("broker", SECRET),
    body_format="form",
)


def _nobody_counts(_outcome: str) -> None:
    pass


class NobodyCalls:
    """Stands for `Access`, of which the schedule wants this alone."""

    async def flush_use(self) -> None:
        pass


@dataclass(eq=False)
class Trouble:
    """What kept a replica from doing its work, from when to when."""

    begins_at: float
    ends_at: float
    is_excuse: bool = field(default=True)


class Replica:
    """One process. ``troubles``: what happened to it that it can't be blamed for."""

    def __init__(
        self,
        world: World,
        serial: int,
        cipher: Cipher,
        *,
        database: Callable[[Replica], Database],
        wire: Callable[[Replica], Endpoints],
    ) -> None:
        self._world = world
        self.owner = f"replica-{serial}"
        self.loop = SimulatedLoop(world.time)
        self.is_alive = True
        self.is_cut_off = False
        self.listens = True
        self.stopped_until = 0.0
        self.troubles: list[Trouble] = []
        self._scheduling: asyncio.Task[None] | None = None
        self.clock = SimulatedClock(
            world.time, began_at=-1000.0 * serial, wall_skew=(-1) ** serial * 5000.0
        )
        self.change_feed = ChangeFeed(self.clock)
        self.change_feed.listening_began()
        self.cache = TokenCache(self.change_feed)
        self.wakeups = Wakeups()
        self.database = database(self)
        self.breaker = CircuitBreaker(self.clock, probe_seconds=TIMEOUT_SECONDS)
        self.provider = Provider(
            wire(self),
            REGISTRATION,
            self.clock,
            self.breaker,
            timeout_seconds=TIMEOUT_SECONDS,
            patience_seconds=PATIENCE_SECONDS,
        )
        self.clients = OAuthClients({DEFAULT_CLIENT: OAuthClient(self.provider, self.breaker)})
        policy = RefreshPolicy(LEAD_SECONDS, KEEPALIVE_SECONDS)
        self.revocations = Revocations(self.database, cipher, self.clients, self.clock)
        rows = RowRepair(self.database, cipher, self.clock, self.revocations, _nobody_counts)
        self.repair = ReadRepair(
            self.database, rows, self.cache, self.clock, remember_seconds=REMEMBER_SECONDS
        )
        self.held_grants = HeldGrants(
            self.database, cipher, policy, self.clock, self.revocations, self.repair
        )
        self.refresher = Refresher(
            self.database,
            cipher,
            self.clients,
            self.cache,
            self.wakeups,
            self.clock,
            OutcomeRecorder(
                self.database, cipher, self.revocations, self.clock, policy, self.repair
            ),
            self.repair,
            owner=self.owner,
        )
        self.issuer = Issuer(
            self.database, self.cache, self.refresher, self.clock, lead_seconds=LEAD_SECONDS
        )
        self.schedule = BackgroundRefresher(
            self.database,
            [
                DueRenewals(
                    self.breaker, self.refresher, self.clock, rate=50, cpu_seconds=lambda: 0.0
                )
            ],
            self.issuer,
            cast(Access, NobodyCalls()),
            self.clock,
        )

    def begin_schedule(self) -> None:
        self._scheduling = self.loop.create_task(self.schedule.run())

    def end_schedule(self) -> None:
        """As at a shutdown: what is under way goes on."""
        if self._scheduling is not None:
            self._scheduling.cancel()
            self.run()

    @property
    def is_running(self) -> bool:
        return self.is_alive and self.stopped_until <= self._world.now

    def run(self) -> None:
        if self.is_running:
            self.loop.run_ready()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self.loop.create_task(work)
        self.run()
        return task

    def hear(self, notice: Notice) -> None:
        """As `app` does; what comes while the process is stopped waits in its socket."""
        tenant, version, status = notice.payload

        def heard() -> None:
            if status == GrantStatus.CONNECTED:
                self.cache.drop_older(tenant, version)
            else:
                self.cache.forget(tenant)
            self.repair.note_change(tenant, version, GrantStatus(status))
            self.wakeups.wake(tenant)

        if self.is_alive and self.listens:
            self.loop.arrive(heard)
            self.run()

    def hears_until(self, moment: float) -> None:
        elapsed = self._world.now - moment
        self.change_feed.delivery_confirmed(self.clock.monotonic() - elapsed)

    def loses_notices(self) -> None:
        """The LISTEN connection is broken, and the process does not know it yet."""
        self.listens = False
        for item in list(self._world.pending):
            if isinstance(item, Notice) and item.replica is self:
                self._world.pending.remove(item)

    def goes_deaf(self) -> None:
        """It is closed; a stopped process sees that when it goes on."""
        self.loses_notices()
        self.loop.arrive(self.change_feed.listening_ended)
        self.run()

    def listens_again(self) -> None:
        if not self.listens:
            self.listens = True
            self.loop.arrive(self.change_feed.listening_ended)
            self.loop.arrive(self.change_feed.listening_began)
            self.run()

    def is_in_trouble(self, *, since: float) -> bool:
        return any(trouble.ends_at >= since for trouble in self.troubles)

    def hindered_seconds(self, *, since: float) -> float:
        """For how long it could not do its work, by what counts as an excuse."""
        reached, total = since, 0.0
        for trouble in sorted(self.troubles, key=lambda trouble: trouble.begins_at):
            if trouble.is_excuse:
                begins_at = max(trouble.begins_at, reached)
                reached = max(reached, min(trouble.ends_at, self._world.now))
                total += max(0.0, reached - begins_at)
        return total
