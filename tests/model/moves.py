"""Ordinary events. One that does not apply does nothing."""

from __future__ import annotations

from ignition_broker.broker.errors import BrokerError
from ignition_broker.broker.grants.disconnect import disconnect as disconnect_tenant
from ignition_broker.model import Actor
from ignition_broker.oauth.tokens import AccessToken
from ignition_broker.storage.errors import StorageError
from tests.model.promises import NEVER_HANGS, Call
from tests.model.replicas import TENANT
from tests.model.scenario import Scenario
from tests.model.world import A_MOMENT, Operation

ADMIN = Actor("admin")
REACH_SECONDS = 2.2
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
            lambda: replica.issuer.renew_refused(TENANT, rejected_sha256=sha256),
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


def disconnect(scenario: Scenario, number: int, point: Point | None) -> None:
    """An admin's; while somebody is at that point, and a little longer, where one is given."""
    replica = scenario.replica(number)
    operation = reach(scenario, point) if point is not None else None
    if operation is not None:
        operation.due_at += HELD_UP_SECONDS
    if replica is not None:

        async def disconnected() -> None:
            try:
                await disconnect_tenant(
                    replica.database,
                    scenario.cipher,
                    replica.revocations,
                    replica.held_grants,
                    TENANT,
                    ADMIN,
                )
            except (StorageError, BrokerError):
                pass
            except Exception as error:
                scenario.world.breaks(NEVER_HANGS, f"{error!r} is no typed error")

        replica.spawn(disconnected())
        scenario.world.check()


def reconnect(scenario: Scenario, point: Point | None) -> None:
    """An admin walks through the dance, whatever there was before; taken as one step."""
    if point is not None:
        reach(scenario, point)
    if not scenario.server.is_away:
        scenario.store_grant(age_seconds=0.0)


def reach(scenario: Scenario, point: Point) -> Operation | None:
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
