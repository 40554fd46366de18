"""What a replica does with rows that are older than what it has seen."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.unit.values import NOW, ManualClock, make_grant, make_token

from ignition_broker.broker.change_feed import ChangeFeed
from ignition_broker.broker.grants.behind_rows import AWAITED_SECONDS
from ignition_broker.broker.grants.read_repair import ReadRepair
from ignition_broker.broker.grants.remembered_answers import RememberedAnswer
from ignition_broker.broker.grants.settling import DEAF_SECONDS, SETTLE_SECONDS
from ignition_broker.broker.grants.token_cache import TokenCache
from ignition_broker.model import GrantStatus, Lease
from ignition_broker.oauth.tokens import RefreshToken
from ignition_broker.storage.errors import StorageUnavailable
from ignition_broker.storage.restoring import NO_ROW, RowState
from ignition_broker.storage.sealed_tokens import Schedule, SealedTokens, Stored

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
CONNECTED, DISCONNECTED = GrantStatus.CONNECTED, GrantStatus.DISCONNECTED


class Rows:
    """Stands for `RowRepair`: what was asked of it, and what it answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.restores = True
        self.found = NO_ROW

    async def restore(self, tenant, answer):
        self.asked.append(("restore", tenant, answer.stored.version))
        return self.restores

    async def mark(self, tenant, found, known_version, *, wait_seconds, is_news):
        self.asked.append(("mark", tenant, found.version, known_version, is_news))

    async def disconnect_again(self, tenant, found, known_version):
        self.asked.append(("disconnect", tenant, found.version))
        return True

    async def state_of(self, _tenant):
        return self.found

    async def store_above(self):
        raise NotImplementedError


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def rows():
    return Rows()


@pytest.fixture
def cache(clock):
    change_feed = ChangeFeed(clock)
    change_feed.listening_began()
    return TokenCache(change_feed)


@pytest.fixture
def repair(rows, cache, clock):
    return ReadRepair(None, rows, cache, clock, remember_seconds=600)


def answer(version: int) -> RememberedAnswer:
    sealed = SealedTokens(b"a", b"r", "Bearer", "", 60.0, "fingerprint")
    return RememberedAnswer(Stored(version, MOMENT, MOMENT, MOMENT), sealed, Schedule(30, 0), NOW)


def lease(version: int, **more) -> Lease:
    fields = {
        "tenant": "acme",
        "version": version,
        "owner": "me",
        "refresh_token": RefreshToken("r"),
        "scope": "",
        "use_before": NOW + 10,
        "was_uncertain": False,
        "failures": 0,
        "access_dies_at": NOW,
    }
    return Lease(**{**fields, **more})


def reading(*grants):
    answers = iter(grants)

    async def read(_asked_at):
        return next(answers)

    return read


def grant(version: int, *, age: float = 50, **more):
    token = make_token(version=version, age=age)
    return make_grant(token, issued_since=NOW - age, **more)


async def test_what_is_remembered_is_stored_again_and_the_row_read_anew(repair, rows):
    repair.note_stored("acme", answer(8))
    found = await repair.read("acme", reading(grant(7), grant(8)))
    assert (found.version, found.went_back) == (8, False)
    assert rows.asked == [("restore", "acme", 8)]


async def test_a_row_that_is_behind_is_uncertain_and_another_replica_is_waited_for(
    repair, rows, clock
):
    repair.note_change("acme", 8, CONNECTED)
    found = await repair.read("acme", reading(grant(7)))
    assert (found.is_uncertain, found.lease_is_held, found.went_back) == (True, True, True)
    assert rows.asked == [("mark", "acme", 7, 8, True)]
    clock.at += AWAITED_SECONDS
    found = await repair.read("acme", reading(grant(7)))
    assert (found.is_uncertain, found.lease_is_held) == (True, False)
    assert rows.asked[1:] == [("mark", "acme", 7, 8, False)], "it is news once"


async def test_a_newer_live_token_in_memory_serves_under_the_rows_version(repair, cache):
    repair.note_change("acme", 8, CONNECTED)
    newer = make_token(version=8)
    cache.put(newer, cache.mark())
    for _ in range(2):
        found = await repair.read("acme", reading(grant(7)))
        assert found.issued.access_token == newer.access_token
        assert found.issued.version == 7
        cache.replace(found.issued, cache.mark())


async def test_what_was_renewed_or_connected_since_is_not_behind(repair, rows, clock):
    repair.note_change("acme", 8, CONNECTED)
    clock.at += 10
    found = await repair.read("acme", reading(grant(7, age=-5)))
    assert (found.is_uncertain, found.went_back) == (False, True)
    assert rows.asked == []
    found = await repair.read("acme", reading(grant(7, age=-5)))
    assert not found.went_back, "it is the newest known by now"


async def test_a_row_read_before_a_newer_version_was_stored_says_nothing(repair, rows):
    async def read(_asked_at):
        repair.note_stored("acme", answer(8))
        return grant(7)

    found = await repair.read("acme", read)
    assert not found.is_uncertain
    assert rows.asked == []
    assert repair.known("acme").version == 8, "and takes nothing away"


async def test_a_forgotten_disconnect_is_carried_out_again_and_nobody_is_served(
    repair, rows, clock
):
    repair.note_change("acme", 9, DISCONNECTED)
    found = await repair.read(
        "acme", reading(grant(8), make_grant(make_token(), status=DISCONNECTED, issued=None))
    )
    assert found.status is DISCONNECTED
    assert rows.asked == [("disconnect", "acme", 8)]
    clock.at += 601
    found = await repair.read("acme", reading(grant(8, age=700)))
    assert found.status is CONNECTED, "so long ago the database is believed"


async def test_a_disconnect_in_the_older_database_counts(repair, rows):
    repair.note_stored("acme", answer(8))
    repair.note_change("acme", 7, DISCONNECTED)
    assert not await repair.offer("acme")
    assert repair.known("acme").version == 7


def test_a_lease_of_a_row_that_is_behind_is_not_used(repair, clock):
    repair.note_change("acme", 8, CONNECTED)
    assert repair.is_behind(lease(7))
    assert not repair.is_behind(lease(8))
    assert not repair.is_behind(lease(7, issued_since=clock.at + 1))
    assert not repair.is_behind(lease(7, was_uncertain=True)), "nothing else is left"


async def test_after_a_break_of_the_feed_older_refresh_tokens_are_left_alone_for_a_while(
    repair, clock
):
    repair.feed_confirmed()
    assert not repair.is_settling, "nothing was there before that could have been lost"
    clock.at += 100
    repair.feed_ended()
    assert repair.is_settling, "until Postgres answers"
    found = await repair.read("acme", reading(grant(1, age=101)))
    assert found.lease_is_held, "a newer version may have been stored unheard"
    found = await repair.read("beta", reading(grant(1, age=-200)))
    assert not found.lease_is_held, "that one was stored after the break"
    clock.at += DEAF_SECONDS
    assert not repair.is_settling, "a feed that stays broken holds nobody up for long"
    with pytest.raises(StorageUnavailable):
        await repair.read("acme", away)
    assert repair.is_settling, "Postgres went away, and may come back as another"
    repair.feed_confirmed()
    clock.at += SETTLE_SECONDS - 0.1
    assert (await repair.read("acme", reading(grant(1, age=101)))).lease_is_held
    clock.at += 0.1
    assert not repair.is_settling
    assert not (await repair.read("acme", reading(grant(1, age=101)))).lease_is_held


async def away(_asked_at):
    raise StorageUnavailable("away")


async def test_a_refusal_that_a_newer_answer_outlives_ends_no_grant(repair, rows, clock):
    assert not await repair.outlives_refusal(lease(7)), "nothing newer is known"
    repair.note_change("acme", 8, CONNECTED)
    rows.found = RowState(7, CONNECTED, NOW - 50)
    began = clock.at
    assert not await repair.outlives_refusal(lease(7))
    assert clock.at - began >= AWAITED_SECONDS
    rows.found = RowState(8, CONNECTED, NOW)
    assert await repair.outlives_refusal(lease(7)), "another replica stored it again"
    rows.found = RowState(7, CONNECTED, NOW - 50)
    repair.note_stored("acme", answer(8))
    assert await repair.outlives_refusal(lease(7))
    assert rows.asked == [("restore", "acme", 8)]
