"""Faults. One that does not apply, such as a lost answer where none is on its way,
does nothing."""

from __future__ import annotations

from ignition_broker.outbound.errors import Unreachable
from tests.model.ignition import answer
from tests.model.moves import NEARLY_A_LIFETIME_SECONDS, Point, ask, reach
from tests.model.replicas import Trouble
from tests.model.scenario import Scenario
from tests.model.world import A_MOMENT, POSTGRES, Operation

LONGEST_PAUSE_OF_A_RETRY_SECONDS = 0.5


def kill(scenario: Scenario, point: Point, takes_messages_along: bool) -> None:
    """SIGKILL to whoever is there; what it had sent has left already, or has not."""
    operation, world = reach(scenario, point), scenario.world
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
    operation, world = reach(scenario, point), scenario.world
    if operation is None:
        return
    replica = operation.replica
    world.tell(f"{replica.owner} is stopped for {seconds} s")
    replica.stopped_until = world.now + seconds
    replica.troubles.append(Trouble(world.now, replica.stopped_until))
    world.at(replica.stopped_until, replica.run)


def cut_off(scenario: Scenario, point: Point, seconds: float) -> None:
    """Whoever is there can't reach Postgres; the others can."""
    operation, world = reach(scenario, point), scenario.world
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
    reach(scenario, point)
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
        # No excuse for a second use: the replica with the answer gets a head start to store it.
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
    operation, world = reach(scenario, point), scenario.world
    if operation is not None:
        until = world.now + LONGEST_PAUSE_OF_A_RETRY_SECONDS
        operation.replica.troubles.append(Trouble(operation.issued_at, until))
        world.fail(operation, ConnectionResetError())


def delay(scenario: Scenario, point: Point, seconds: float) -> None:
    """A statement or a request takes that much longer to arrive, or its answer does."""
    operation, world = reach(scenario, point), scenario.world
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
    operation = reach(scenario, ("use", is_carried_out))
    if operation is not None:
        scenario.world.fail(operation, Unreachable("reset"))


def answer_late(scenario: Scenario, seconds: float) -> None:
    """Ignition has done it at once, and its answer takes its time."""
    delay(scenario, ("use", True), seconds)


def drip(scenario: Scenario, pieces: int, seconds: float) -> None:
    """The answer comes in pieces, each so long behind the other."""
    operation = reach(scenario, ("use", True))
    if operation is not None:
        scenario.world.tell(f"the answer to {operation} drips")
        operation.pauses = [seconds] * pieces


def stop_past_all_deadlines(scenario: Scenario) -> None:
    """The answer comes while the process is stopped; when it goes on, all its timers are due."""
    operation = reach(scenario, ("use", True))
    if operation is not None:
        delay(scenario, ("use", True), 6.0)
        scenario.world.advance(4.0)
        if operation in scenario.world.pending:
            stop(scenario, ("use", True), 14.0)
            scenario.world.advance(14.0)


def gateway_answers(scenario: Scenario, status: int) -> None:
    """Ignition has done it, and what stands before it gives an answer of its own."""
    operation = reach(scenario, ("use", True))
    if operation is not None:
        operation.is_lost = True
        operation.answer = answer(status, "<html>")


def garble(scenario: Scenario) -> None:
    """Ignition has done it, and its answer says something else."""
    operation = reach(scenario, ("use", True))
    if operation is not None:
        operation.is_lost = True
        operation.answer = answer(200, "<html>")


def ignition_answers(scenario: Scenario, status: int, error: str | None = None) -> None:
    """Without having carried it out."""
    operation = reach(scenario, ("use", False))
    if operation is not None:
        operation.act = lambda: answer(status, {"error": error}, **{"retry-after": "3"})


def ignition_goes(scenario: Scenario, seconds: float) -> None:
    """Nothing listens at its address."""
    world, ignition = scenario.world, scenario.ignition

    def is_back() -> None:
        ignition.is_away = False

    if not ignition.is_away:
        world.tell(f"Ignition is away for {seconds} s")
        ignition.is_away = True
        world.at(world.now + seconds, is_back)
