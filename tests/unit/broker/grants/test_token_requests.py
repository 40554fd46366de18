"""How a request that outlives its callers is counted, and when a lease lets a request be sent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ignition_broker.broker.grants import leases
from ignition_broker.broker.grants.circuit_breaker import CircuitBreaker
from ignition_broker.broker.grants.leases import LEASE_SECONDS, LeaseKeeper, use_before
from ignition_broker.broker.grants.provider import Provider, Registration
from ignition_broker.broker.grants.token_outcomes import AnswerLost, Renewed, Withdrawn
from ignition_broker.clock import SystemClock
from ignition_broker.model import Lease
from ignition_broker.oauth.requests import client_secret_post
from ignition_broker.oauth.tokens import ClientSecret, RefreshToken
from ignition_broker.outbound.answers import Answer
from ignition_broker.outbound.errors import RequestWithdrawn, Unreachable
from ignition_broker.storage.errors import StorageUnavailable

SECRET = ClientSecret("secret")
REGISTRATION = Registration(
    client_id="broker",
    client_secret=SECRET,
    redirect_uri="http://broker.test/callback",
    scope="",
    authorize_url="http://ignition.test/authorize",
    token_url="http://ignition.test/token",
    revoke_url=None,
    authenticate=client_secret_post("broker", SECRET),
    body_format="form",
)
TOKEN = Answer(200, {}, b'{"access_token": "a", "refresh_token": "r"}')


class CountingBreaker(CircuitBreaker):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__(SystemClock(), probe_seconds=1)
        self.told: list[str] = []

    def failed(self, whose: str, *, asked_seconds: float | None = None) -> None:
        self.told.append("failed")

    def succeeded(self) -> None:
        self.told.append("succeeded")


class SlowEndpoints:
    def __init__(self, seconds: float, outcome: Answer | Exception) -> None:
        self.seconds = seconds
        self.outcome = outcome
        self.was_cancelled = False

    async def post(self, _request: Any, *, may_send: Any = None) -> Answer:
        if may_send is not None and not may_send():
            raise RequestWithdrawn("too late")
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


async def refreshed(endpoints: SlowEndpoints, *, may_send: bool = True) -> tuple[Any, list[str]]:
    breaker = CountingBreaker()
    provider = Provider(
        endpoints,
        REGISTRATION,
        SystemClock(),
        breaker,
        timeout_seconds=0.1,
        patience_seconds=0.4,
    )
    token = RefreshToken("refresh")
    outcome = await provider.refresh(token, may_send=lambda: may_send)
    return outcome, breaker.told


@pytest.mark.parametrize(
    ("seconds", "outcome", "kind", "told"),
    [
        (0.0, TOKEN, Renewed, ["succeeded"]),
        (0.2, TOKEN, Renewed, ["failed", "succeeded"]),
        (0.0, Unreachable("reset"), AnswerLost, ["failed"]),
        (0.2, Unreachable("reset"), AnswerLost, ["failed"]),
        (0.2, Answer(503, {}, b""), None, ["failed"]),
    ],
)
async def test_a_late_request_counts_as_failed_once_and_its_answer_as_a_success(
    seconds, outcome, kind, told
):
    endpoints = SlowEndpoints(seconds, outcome)
    result, seen = await refreshed(endpoints)
    assert kind is None or isinstance(result, kind)
    assert seen == told
    assert not endpoints.was_cancelled


async def test_what_takes_longer_than_the_patience_is_given_up_and_lost():
    endpoints = SlowEndpoints(5, TOKEN)
    result, seen = await refreshed(endpoints)
    await asyncio.sleep(0)
    assert isinstance(result, AnswerLost)
    assert "within 0.4 s" in result.reason
    assert seen == ["failed"]
    assert endpoints.was_cancelled


async def test_what_may_not_be_sent_any_more_counts_as_nothing():
    result, seen = await refreshed(SlowEndpoints(0, TOKEN), may_send=False)
    assert isinstance(result, Withdrawn)
    assert seen == []


class Clock:
    """Sleeping takes no time."""

    elapsed = 1000.0

    def monotonic(self) -> float:
        return self.elapsed

    async def sleep(self, seconds: float) -> None:
        self.elapsed += seconds
        await asyncio.sleep(0)


class Row:
    """What `leases.extend` makes of it, in turn; an exception is raised. It then fails for ever."""

    def __init__(self, *answers: bool | Exception) -> None:
        self.answers = list(answers)

    async def single(self, _work: Any) -> bool:
        answer = self.answers.pop(0) if self.answers else StorageUnavailable("away")
        if isinstance(answer, Exception):
            raise answer
        return answer


def lease(clock: Clock) -> Lease:
    return Lease(
        tenant="acme",
        version=1,
        owner="me",
        refresh_token=RefreshToken("refresh"),
        scope="",
        use_before=use_before(clock.elapsed),
        was_uncertain=False,
        failures=0,
        access_dies_at=0.0,
    )


def keeper(clock: Clock, row: Row) -> LeaseKeeper:
    database: Any = row
    any_clock: Any = clock
    return LeaseKeeper(database, any_clock, lease(clock))


async def test_a_lease_that_cannot_be_extended_lets_nothing_go_out_near_its_end():
    clock = Clock()
    kept = keeper(clock, Row())
    assert kept.may_send()
    clock.elapsed += LEASE_SECONDS - leases.SEND_MARGIN_SECONDS + 0.01
    assert not kept.may_send()
    assert not await kept.extend()
    assert not kept.may_send()


async def test_a_lease_that_was_extended_may_be_used_as_from_then():
    clock = Clock()
    kept = keeper(clock, Row(True))
    clock.elapsed += 10 * LEASE_SECONDS
    assert not kept.may_send()
    assert await kept.extend()
    assert kept.may_send()


async def test_a_lease_that_somebody_else_has_ends_its_keeper_and_lets_nothing_go_out():
    clock = Clock()
    row = Row(True, StorageUnavailable("away"), True, False)
    kept = keeper(clock, row)
    began = clock.elapsed
    async with asyncio.timeout(1):
        await kept.run()
    assert row.answers == []
    assert not kept.may_send()
    assert clock.elapsed - began < 4 * LEASE_SECONDS / 3, "each was tried well within the lease"
