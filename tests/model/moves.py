"""What may befall a scenario. A move that does not apply, such as the kill of a dead replica,
does nothing."""

from __future__ import annotations

import contextlib

import httpx

from ignition_broker.broker import connect
from ignition_broker.broker.errors import BrokerError
from ignition_broker.model import Actor
from ignition_broker.oauth.tokens import AccessToken
from ignition_broker.storage.errors import StorageError
from tests.model.promises import Call
from tests.model.replicas import TENANT, Trouble
from tests.model.scenario import Scenario
from tests.model.world import A_MOMENT, POSTGRES, Operation

ADMIN = Actor("admin")
LONGEST_PAUSE_OF_A_RETRY_SECONDS = 0.5
REACH_SECONDS = 1.5
HELD_UP_SECONDS = 0.6
NEARLY_A_LIFETIME_SECONDS = 39.0
"""Whoever asks for so much has the token renewed, unless it is new."""

Point = tuple[str, bool]
"""How the name of a statement or a request begins, and whether it has been carried out."""


def nothing(_scenario: Scenario) -> None:
    """What a step becomes that a failure can do without."""


def advance(scenario: Scenario, seconds: float) -> None:
    scenario.world.advance(seconds)


def wear_out(scenario: Scenario) -> None:
    """Time passes until the stored token ends, if nobody renews it meanwhile."""
    seconds_left = scenario.promises.seconds_left()
    scenario.world.advance(max(0.0, seconds_left) + A_MOMENT)


def proceed(scenario: Scenario, number: int) -> None:
    """Of all that is on its way, what was sent as the ``number``-th comes a step further."""
    world = scenario.world
    if number < len(world.pending):
        item = world.pending[number]
        world.advance(A_MOMENT)
        if item in world.pending:
            world.proceed(item)


def ask(
    scenario: Scenario, number: int, min_ttl_seconds: float, at_worst_seconds: float | None = None
) -> Call | None:
    replica = scenario.replica(number)
    if replica is None:
        return None
    return scenario.begin_call(
        replica,
        lambda: replica.issuer.issue(
            TENANT, min_ttl_seconds=min_ttl_seconds, at_worst_seconds=at_worst_seconds
        ),
        min_ttl_seconds=min_ttl_seconds,
        at_worst_seconds=min_ttl_seconds if at_worst_seconds is None else at_worst_seconds,
    )


def reject(scenario: Scenario, number: int) -> None:
    """A caller saw a 401 with the token that was served last."""
    replica, rejected = scenario.replica(number), scenario.promises.last_served
    if replica is not None and rejected is not None:
        sha256 = AccessToken(rejected).sha256
        scenario.begin_call(
            replica,
            lambda: replica.issuer.renew(TENANT, rejected_sha256=sha256),
            rejected=rejected,
            insists=True,
        )


def urge(scenario: Scenario, number: int) -> None:
    """An admin renews by hand."""
    replica = scenario.replica(number)
    if replica is not None:
        scenario.begin_call(
            replica, lambda: replica.issuer.renew_anyway(TENANT, ADMIN), insists=True
        )


def leave(scenario: Scenario, number: int) -> None:
    """A caller goes away."""
    if number < len(scenario.calls):
        call, task = list(scenario.calls.items())[number]
        del scenario.calls[call]
        task.cancel()
        call.replica.run()


def kill(scenario: Scenario, point: Point, takes_messages_along: bool) -> None:
    """SIGKILL to whoever is there; what it had sent has left already, or has not."""
    operation, world = _reach(scenario, point), scenario.world
    if operation is None:
        return
    replica = operation.replica
    world.tell(f"{replica.owner} is killed")
    replica.is_alive = False
    replica.loses_notices()
    for call in [call for call in scenario.calls if call.replica is replica]:
        del scenario.calls[call]
    for item in list(world.pending):
        is_its_own = isinstance(item, Operation) and item.replica is replica
        if is_its_own and takes_messages_along and not item.is_carried_out:
            world.pending.remove(item)


def start(scenario: Scenario, number: int) -> None:
    scenario.start(number)


def stop(scenario: Scenario, point: Point, seconds: float) -> None:
    """SIGSTOP to whoever is there, and SIGCONT after ``seconds``."""
    operation, world = _reach(scenario, point), scenario.world
    if operation is None:
        return
    replica = operation.replica
    world.tell(f"{replica.owner} is stopped for {seconds} s")
    replica.stopped_until = world.now + seconds
    replica.troubles.append(Trouble(world.now, replica.stopped_until))
    world.at(replica.stopped_until, replica.run)


def cut_off(scenario: Scenario, point: Point, seconds: float) -> None:
    """Whoever is there can't reach Postgres; the others can."""
    operation, world = _reach(scenario, point), scenario.world
    if operation is None or operation.replica.is_cut_off:
        return
    replica = operation.replica

    def mended() -> None:
        replica.is_cut_off = False
        if not scenario.server.is_away:
            replica.listens_again()

    world.tell(f"{replica.owner} is cut off for {seconds} s")
    replica.is_cut_off = True
    replica.loses_notices()
    replica.troubles.append(
        Trouble(world.now, world.now + seconds + LONGEST_PAUSE_OF_A_RETRY_SECONDS)
    )
    world.at(world.now + seconds, mended)


def restart_postgres(scenario: Scenario, point: Point, seconds: float) -> None:
    """At once: what was under way is not carried out, or nobody hears that it was."""
    world, server = scenario.world, scenario.server
    _reach(scenario, point)
    if server.is_away:
        return

    def is_back() -> None:
        server.is_away = False
        server.table.started_at = server.now
        for replica in world.replicas:
            if replica.is_alive and not replica.is_cut_off:
                replica.listens_again()

    world.tell(f"Postgres is away for {seconds} s")
    server.is_away = True
    server.back_at = world.now + seconds
    for replica in world.replicas:
        # No excuse for a second use: whoever has an answer gets a head start to store it.
        replica.troubles.append(Trouble(world.now, server.back_at, is_excuse=False))
        if replica.is_alive:
            replica.goes_deaf()
    for item in list(world.pending):
        if isinstance(item, Operation) and item.target == POSTGRES and item in world.pending:
            world.fail(item, ConnectionResetError())
    world.at(server.back_at, is_back)


def postgres_returns(scenario: Scenario) -> None:
    """And everybody asks at once."""
    world, server = scenario.world, scenario.server
    if server.is_away:
        world.advance(server.back_at - world.now)
        for number in range(len(world.replicas)):
            ask(scenario, number, NEARLY_A_LIFETIME_SECONDS)


def deafen(scenario: Scenario, number: int, seconds: float) -> None:
    """A LISTEN connection is broken, and nobody tells its ends."""
    replica, world = scenario.replica(number), scenario.world
    if replica is not None and replica.listens:
        replica.loses_notices()
        world.at(world.now + seconds, replica.listens_again)


def drop(scenario: Scenario, point: Point) -> None:
    """A statement fails on its way, or, where it was carried out, its answer is lost."""
    operation, world = _reach(scenario, point), scenario.world
    if operation is not None:
        until = world.now + LONGEST_PAUSE_OF_A_RETRY_SECONDS
        operation.replica.troubles.append(Trouble(operation.issued_at, until))
        world.fail(operation, ConnectionResetError())


def delay(scenario: Scenario, point: Point, seconds: float) -> None:
    """A statement or a request takes that much longer to arrive, or its answer does."""
    operation, world = _reach(scenario, point), scenario.world
    if operation is None:
        return
    operation.due_at = world.now + seconds
    world.tell(f"{operation} takes {seconds} s more")
    if operation.target == POSTGRES:
        # An answer's delay is no excuse: the store is done by then, and a lease that comes late
        # must not be used.
        excuses = not operation.is_carried_out
        trouble = Trouble(world.now, operation.due_at + A_MOMENT, is_excuse=excuses)
        operation.replica.troubles.append(trouble)


def lose(scenario: Scenario, is_carried_out: bool) -> None:
    """The connection to Ignition breaks under a request: before it arrives, or after."""
    operation = _reach(scenario, ("use", is_carried_out))
    if operation is not None:
        scenario.world.fail(operation, httpx.ReadError("reset"))


def garble(scenario: Scenario) -> None:
    """Ignition has done it, and its answer says something else."""
    operation = _reach(scenario, ("use", True))
    if operation is not None:
        operation.is_lost = True
        operation.answer = httpx.Response(200, text="<html>")


def ignition_answers(scenario: Scenario, status: int, error: str | None = None) -> None:
    """Without having carried it out."""
    operation = _reach(scenario, ("use", False))
    if operation is not None:
        operation.act = lambda: httpx.Response(
            status, json={"error": error}, headers={"Retry-After": "3"}
        )


def ignition_goes(scenario: Scenario, seconds: float) -> None:
    """Nothing listens at its address."""
    world, ignition = scenario.world, scenario.ignition

    def is_back() -> None:
        ignition.is_away = False

    if not ignition.is_away:
        world.tell(f"Ignition is away for {seconds} s")
        ignition.is_away = True
        world.at(world.now + seconds, is_back)


def disconnect(scenario: Scenario, number: int, point: Point | None) -> None:
    """An admin's; while somebody is at that point, and a little longer, where one is given."""
    replica = scenario.replica(number)
    operation = _reach(scenario, point) if point is not None else None
    if operation is not None:
        operation.due_at += HELD_UP_SECONDS
    if replica is not None:

        async def disconnected() -> None:
            with contextlib.suppress(StorageError, BrokerError):
                await connect.disconnect(
                    replica.database, scenario.cipher, replica.provider, TENANT, ADMIN
                )

        replica.spawn(disconnected())
        scenario.world.check()


def reconnect(scenario: Scenario, point: Point | None) -> None:
    """An admin walks through the dance, whatever there was before; taken as one step."""
    if point is not None:
        _reach(scenario, point)
    if not scenario.server.is_away:
        scenario.store_grant(age_seconds=0.0)


def _reach(scenario: Scenario, point: Point) -> Operation | None:
    """Goes on until something is at that point, where it soon will be; where nobody waits for a
    refresh, somebody asks for one."""
    world = scenario.world
    end = world.now + REACH_SECONDS
    if not any(call.replica.is_running for call in scenario.calls):
        ask(scenario, next(scenario.turns) % len(world.replicas), NEARLY_A_LIFETIME_SECONDS)
    while True:
        for item in world.pending:
            if isinstance(item, Operation) and item.is_at(*point) and item.replica.is_running:
                return item
        if world.next_moment() > end:
            return None
        world.advance(max(0.0, world.next_moment() - world.now))
