"""The refresh between a table in memory and an Ignition with a script."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.broker.grants.fakes import TENANT, TIMEOUT_SECONDS, Stand, renewed

from ignition_broker.broker.errors import (
    NotYetAnswered,
    ProviderFault,
    ProviderUnavailable,
    ReauthorizationRequired,
    Unavailable,
)
from ignition_broker.broker.grants.circuit_breaker import OPENS_AFTER, Permit
from ignition_broker.broker.grants.token_outcomes import (
    AnswerLost,
    NoToken,
    NotSent,
    Outcome,
    Refused,
)
from ignition_broker.broker.grants.token_requirements import WantedToken
from ignition_broker.cipher import Unreadable
from ignition_broker.storage import leases
from ignition_broker.storage.errors import StorageUnavailable

LIVING = WantedToken(1, min_ttl_seconds=50)


def text(token):
    return token.access_token.reveal()


async def test_a_stored_token_that_will_do_is_given_without_asking():
    stand = Stand()
    stand.connect()
    assert text(await stand.refresher.renew(TENANT, LIVING)) == "access-1"
    assert stand.provider.used == []


async def test_callers_who_ask_at_once_share_one_request_and_its_committed_answer():
    stand = Stand(renewed())
    stand.connect(age=99)
    tokens = await asyncio.gather(*(stand.refresher.renew(TENANT, LIVING) for _ in range(20)))
    assert {text(token) for token in tokens} == {"access-2"}
    assert stand.provider.used == ["refresh-1"]
    assert (stand.row.version, stand.row.lease_owner) == (2, None)


async def test_while_another_replica_holds_the_lease_its_token_is_waited_for():
    stand = Stand()
    row = stand.connect(age=99, lease_owner="other", lease_until=2000.0, refresh_started_at=999.0)
    asked = asyncio.create_task(stand.refresher.renew(TENANT, LIVING))
    await asyncio.sleep(0.01)
    assert not asked.done()
    stand.connect(version=2)
    stand.wakeups.wake(TENANT)
    async with asyncio.timeout(0.2):
        assert text(await asked) == "access-2"
    assert stand.provider.used == []
    assert row.lease_owner == "other"
    assert leases.CLAIM not in stand.database.carried_out


async def test_callers_stop_waiting_for_a_slow_answer_which_is_stored_all_the_same():
    may_answer = asyncio.Event()

    async def slow() -> Outcome:
        await may_answer.wait()
        return renewed()

    stand = Stand(slow)
    stand.connect(age=99)
    with pytest.raises(NotYetAnswered):
        await stand.refresher.renew(TENANT, LIVING)
    assert stand.row.version == 1
    may_answer.set()
    await stand.refresher.end(1)
    assert stand.row.version == 2
    assert text(await stand.refresher.renew(TENANT, LIVING)) == "access-2"
    assert stand.provider.used == ["refresh-1"], "the refresh token went out once"


def open_breaker(stand):
    for n in range(OPENS_AFTER):
        stand.breaker.failed(f"grant-{n}")


async def test_while_the_breaker_is_open_nothing_is_claimed_unless_an_admin_asks():
    stand = Stand(renewed())
    stand.connect(age=99)
    open_breaker(stand)
    with pytest.raises(ProviderUnavailable) as caught:
        await stand.refresher.renew(TENANT, LIVING)
    assert caught.value.retry_after_seconds == pytest.approx(1)
    assert leases.CLAIM not in stand.database.carried_out
    urgent = WantedToken(1, is_urgent=True)
    assert text(await stand.refresher.renew(TENANT, urgent)) == "access-2"


async def test_a_probe_whose_claim_fails_makes_room_for_the_next():
    stand = Stand()
    stand.connect(age=99)
    open_breaker(stand)
    stand.clock.at += 1

    async def away(_grant, *, is_early=False):
        raise StorageUnavailable("away")

    stand.refresher.leases.claim = away  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await stand.refresher.renew(TENANT, LIVING)
    assert isinstance(stand.breaker.permit(), Permit)


async def test_a_probe_keeps_its_place_while_its_request_is_out():
    async def slow() -> Outcome:
        await asyncio.sleep(0.05)
        return renewed()

    stand = Stand(slow)
    stand.connect(age=99)
    open_breaker(stand)
    stand.clock.at += 1
    asked = asyncio.create_task(stand.refresher.renew(TENANT, LIVING))
    await asyncio.sleep(0.01)
    assert not isinstance(stand.breaker.permit(), Permit)
    await asked


async def test_a_probe_keeps_its_place_when_its_caller_has_stopped_waiting():
    may_answer = asyncio.Event()

    async def slow() -> Outcome:
        await may_answer.wait()
        return renewed()

    stand = Stand(slow)
    stand.connect(age=99)
    open_breaker(stand)
    stand.clock.at += 1
    with pytest.raises(NotYetAnswered):
        await stand.refresher.renew(TENANT, LIVING)
    assert not isinstance(stand.breaker.permit(), Permit)
    may_answer.set()
    await stand.refresher.end(1)
    assert isinstance(stand.breaker.permit(), Permit)


async def test_a_lease_that_no_key_opens_is_set_aside_and_not_held():
    stand = Stand()
    stand.connect(age=99, refresh_token=b"1 acme refresh_token unreadable")

    def no_key(tenant: str, column: str, ciphertext: bytes) -> str:
        if column == "refresh_token":
            raise Unreadable("no key", tenant=tenant, column=column, ciphertext=ciphertext)
        return ciphertext.decode().split(" ")[-1]

    stand.cipher.decrypt = no_key  # type: ignore[method-assign]
    with pytest.raises(Unreadable):
        await stand.refresher.renew(TENANT, LIVING)
    row = stand.row
    assert (row.lease_owner, row.refresh_started_at) == (None, None), "no answer is taken for lost"
    assert row.next_refresh_at == pytest.approx(stand.clock.at + 3600)


async def test_a_dead_tokens_lost_answer_is_tried_once_more_and_no_further():
    stand = Stand(AnswerLost("reset"), AnswerLost("reset"))
    stand.connect(age=101)
    with pytest.raises(ProviderUnavailable, match="reset"):
        await stand.refresher.renew(TENANT, LIVING)
    assert stand.provider.used == ["refresh-1", "refresh-1"]


async def test_a_live_tokens_lost_answer_is_not_tried_again():
    stand = Stand(AnswerLost("reset"))
    stand.connect(age=99)
    with pytest.raises(ProviderUnavailable):
        await stand.refresher.renew(TENANT, LIVING)
    assert stand.provider.used == ["refresh-1"]


async def test_a_refusal_ends_the_grant():
    stand = Stand(Refused("revoked"))
    stand.connect(age=99)
    with pytest.raises(ReauthorizationRequired, match="revoked"):
        await stand.refresher.renew(TENANT, LIVING)


async def test_a_failure_gives_way_to_a_token_that_somebody_else_has_stored():
    stand = Stand()

    async def overtaken() -> Outcome:
        stand.connect(version=2)
        return NotSent("refused")

    stand.provider.script = [overtaken]
    stand.connect(age=99)
    assert text(await stand.refresher.renew(TENANT, LIVING)) == "access-2"


async def test_whoever_asks_for_less_is_not_refused_with_one_who_asked_for_more():
    stand = Stand(NoToken("a page"))
    # With 40 s left this token will do for the second caller.
    stand.connect(age=60)
    more = asyncio.create_task(stand.refresher.renew(TENANT, WantedToken(1, 60)))
    await asyncio.sleep(0)
    less = asyncio.create_task(stand.refresher.renew(TENANT, WantedToken(1, 30)))
    assert text(await less) == "access-1"
    with pytest.raises(ProviderFault):
        await more


async def test_a_row_that_stays_locked_is_said_to_be(monkeypatch):
    stand = Stand()
    stand.connect(age=99)
    monkeypatch.setattr(
        "ignition_broker.broker.grants.refresh.LOCKED_ROW_SECONDS", TIMEOUT_SECONDS / 4
    )

    async def never(_grant, *, is_early=False):
        stand.clock.at += TIMEOUT_SECONDS / 3

    stand.refresher.leases.claim = never  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="locked"):
        await stand.refresher.renew(TENANT, LIVING)


async def test_the_end_waits_for_leases_that_are_given_back():
    stand = Stand()
    stand.connect(age=99, next_refresh_at=0.0)
    (lease,) = await stand.refresher.leases.claim_due(limit=1, besides=[])
    assert stand.row.lease_owner == lease.owner
    stand.database.failures = 3
    stand.refresher.leases.give_back_soon(lease)
    assert TENANT not in stand.refresher.flights, "callers join nothing that only gives up"
    await stand.refresher.end(1)
    assert (stand.row.lease_owner, stand.row.refresh_started_at) == (None, None)


async def test_an_empty_refresh_token_is_noted_and_not_sent():
    stand = Stand()
    stand.connect(refresh_token=b"1 acme refresh_token ")
    token = await stand.refresher.renew(TENANT, WantedToken(0, rejected_sha256="0" * 64))
    assert text(token) == "access-1"
    urgent = asyncio.create_task(stand.refresher.renew(TENANT, WantedToken(1, is_urgent=True)))
    await asyncio.sleep(0.01)
    urgent.cancel()
    assert stand.provider.used == []


async def test_a_request_that_comes_too_late_for_its_lease_is_not_sent():
    stand = Stand(renewed())
    stand.connect(age=99)
    lease = await stand.refresher.leases.claim((await stand.refresher.read(TENANT))[0])
    stand.clock.at += 3.5
    stand.row.lease_owner = "other"
    with pytest.raises(ProviderUnavailable, match="too late"):
        await stand.refresher.use(lease, stand.breaker.permit())
    assert stand.provider.used == []
