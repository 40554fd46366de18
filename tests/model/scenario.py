"""Replicas, one Postgres, one Ignition, one tenant, and those who call for its token."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable

from ignition_broker.broker.errors import BrokerError
from ignition_broker.cipher import Cipher
from ignition_broker.model import IssuedToken
from ignition_broker.storage import new_tokens
from tests.model.ignition import LIFETIME_SECONDS, Ignition, Wire
from tests.model.postgres import PlainCipher, Server, SimulatedDatabase
from tests.model.promises import NEVER_HANGS, Call, Promises
from tests.model.replicas import LEAD_SECONDS, TENANT, Replica, Trouble
from tests.model.world import World


class Scenario:
    """``token_age_seconds``: of the access token that is stored when it begins."""

    def __init__(self, *, replicas: int, token_age_seconds: float, has_background: bool) -> None:
        self.world = World()
        self.cipher: Cipher = PlainCipher()
        self.server = Server(self.world)
        self.ignition = Ignition(self.world)
        self.promises = Promises(self.world, self.server, self.ignition, self.cipher)
        self.calls: dict[Call, asyncio.Task[None]] = {}
        self._has_background = has_background
        self._serial = itertools.count(1)
        self.turns = itertools.count()
        self._every_replica: list[Replica] = []
        self.store_grant(age_seconds=token_age_seconds)
        self.world.replicas = [self._new_replica() for _ in range(replicas)]

    def store_grant(self, *, age_seconds: float) -> None:
        access_token, refresh_token = self.ignition.connect()
        self.ignition.access_ends_at[access_token] -= age_seconds
        self.server.table.tenants.add(TENANT)
        given = {
            "tenant": TENANT,
            "access_token": self.cipher.encrypt(TENANT, "access_token", access_token),
            "refresh_token": self.cipher.encrypt(TENANT, "refresh_token", refresh_token),
            "token_type": "Bearer",
            "scope": "",
            "age": age_seconds,
            "left": LIFETIME_SECONDS - age_seconds,
            "renew_in": max(0.0, LIFETIME_SECONDS - LEAD_SECONDS - age_seconds),
            "action": "connect",
            "outcome": "done",
        }
        self.server.commit(new_tokens.STORE_CONNECTED, given)

    def _new_replica(self) -> Replica:
        world = self.world
        replica = Replica(
            world,
            next(self._serial),
            self.cipher,
            database=lambda replica: SimulatedDatabase(world, replica, self.server),
            wire=lambda replica: Wire(world, replica, self.ignition, self.promises),
        )
        if self.server.is_away:
            replica.listens = False
            replica.troubles.append(Trouble(world.now, self.server.back_at, is_excuse=False))
        self._every_replica.append(replica)
        if self._has_background:
            replica.begin_schedule()
        return replica

    def replica(self, number: int) -> Replica | None:
        """The process that has the place of that number, unless it was killed."""
        if number >= len(self.world.replicas) or not self.world.replicas[number].is_alive:
            return None
        return self.world.replicas[number]

    def start(self, number: int) -> None:
        """A new process in the place of one that was killed."""
        if number < len(self.world.replicas) and not self.world.replicas[number].is_alive:
            self.world.replicas[number] = self._new_replica()

    def begin_call(
        self,
        replica: Replica,
        asks: Callable[[], Awaitable[IssuedToken]],
        *,
        min_ttl_seconds: float = 0.0,
        at_worst_seconds: float = 0.0,
        rejected: str | None = None,
        insists: bool = False,
    ) -> Call:
        call = Call(
            replica,
            min_ttl_seconds,
            at_worst_seconds,
            self.world.now,
            self.promises.row.version,
            rejected,
            insists,
        )
        self.promises.somebody_insists |= insists
        self.calls[call] = replica.loop.create_task(self._call(call, asks))
        replica.run()
        self.world.check()
        return call

    async def _call(self, call: Call, asks: Callable[[], Awaitable[IssuedToken]]) -> None:
        try:
            call.token = await asks()
        except BrokerError as error:
            call.error = error
        except Exception as error:
            self.world.breaks(NEVER_HANGS, f"{error!r} is no typed error")
        self.calls.pop(call, None)
        self.world.tell(f"{call} ends")
        if call.token is not None:
            self.promises.served(call)
        else:
            self.promises.refused(call)

    def end(self) -> None:
        self.world.is_over = True
        for replica in self._every_replica:
            replica.loop.cancel_all()
