"""What `Access` remembers of API keys, for how long it is believed, and what happens where the
database can't be asked."""

from __future__ import annotations

import pytest
from tests.unit.scripted_database import ScriptedDatabase
from tests.unit.values import ManualClock

from ignition_broker.broker.callers.access import (
    NO_ISSUERS,
    USE_RECORDED_EVERY_SECONDS,
    Access,
)
from ignition_broker.broker.callers.api_keys import api_key_hash
from ignition_broker.broker.callers.failed_attempts import FailedAttempts
from ignition_broker.broker.change_feed import TRUST_SECONDS, ChangeFeed
from ignition_broker.broker.errors import Unauthenticated, Unavailable
from ignition_broker.model import Scope
from ignition_broker.storage import api_keys
from ignition_broker.storage.errors import StorageUnavailable

KEY = b"ibk_mine"
HASH = api_key_hash("ibk_mine")
ADMIN_KEY = "x" * 32
AWAY = StorageUnavailable("away")


def stored(**changes) -> list[dict]:
    row = {
        "name": "mine",
        "key_hash": HASH,
        "scopes": ["token"],
        "tenants": ["acme"],
        "paths": None,
        "allowance_weight": 1,
        "allowance_reserve": 0,
        "seconds_left": None,
    }
    return [{**row, **changes}]


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def change_feed(clock):
    feed = ChangeFeed(clock)
    feed.listening_began()
    feed.delivery_confirmed(clock.at)
    return feed


@pytest.fixture
def database():
    return ScriptedDatabase({api_keys.FIND: stored()})


@pytest.fixture
def access(database, change_feed, clock):
    return Access(
        database, change_feed, clock, FailedAttempts(clock, limit=3), None, admin_key=ADMIN_KEY
    )


def finds(database) -> int:
    return sum(statement is api_keys.FIND for statement, _given in database.asked)


async def test_a_key_that_was_looked_up_is_answered_from_memory(access, database):
    assert access.from_memory(KEY) is None
    caller = await access.authenticate(KEY, None)
    assert (caller.name, caller.scopes) == ("mine", {Scope.TOKEN})
    assert access.from_memory(KEY) is caller
    assert access.from_memory(b"ibk_another") is None
    assert finds(database) == 1


async def test_memory_is_believed_only_while_the_change_feed_is_proved(access, clock, change_feed):
    await access.authenticate(KEY, None)
    clock.at += TRUST_SECONDS
    assert access.from_memory(KEY) is None
    change_feed.delivery_confirmed(clock.at)
    assert access.from_memory(KEY) is not None
    change_feed.listening_ended()
    assert access.from_memory(KEY) is None


async def test_a_revoked_key_is_forgotten_by_name(access, database):
    await access.authenticate(KEY, None)
    access.forget("another")
    assert access.from_memory(KEY) is not None
    access.forget("mine")
    assert access.from_memory(KEY) is None
    database.answers[api_keys.FIND] = []
    with pytest.raises(Unauthenticated):
        await access.authenticate(KEY, None)


async def test_a_key_ends_in_memory_too_on_the_clock_of_its_look_up(access, database, clock):
    database.answers[api_keys.FIND] = stored(seconds_left=0.5)
    await access.authenticate(KEY, None)
    assert access.from_memory(KEY) is not None
    clock.at += 0.5
    assert access.from_memory(KEY) is None
    with pytest.raises(Unauthenticated) as refused:
        await access.authenticate(KEY, None)
    assert refused.value.key == "mine", "the audit trail is told whose"


async def test_a_key_that_is_over_when_it_is_looked_up_is_refused(access, database):
    database.answers[api_keys.FIND] = stored(seconds_left=-1.0)
    with pytest.raises(Unauthenticated):
        await access.authenticate(KEY, None)


async def test_while_postgres_is_away_a_remembered_key_works_and_others_can_not_be_told(
    access, database, clock
):
    await access.authenticate(KEY, None)
    database.answers[api_keys.FIND] = AWAY
    clock.at += TRUST_SECONDS
    assert (await access.authenticate(KEY, None)).name == "mine"
    with pytest.raises(Unavailable):
        await access.authenticate(b"ibk_another", None)


async def test_where_changes_do_not_arrive_though_postgres_answers_memory_is_not_used(
    access, database, change_feed
):
    await access.authenticate(KEY, None)
    change_feed.listening_ended()
    change_feed.delivery_failed()
    database.answers[api_keys.FIND] = AWAY
    with pytest.raises(Unavailable):
        await access.authenticate(KEY, None)


async def test_the_bootstrap_key_asks_no_database_and_no_session_has_its_hash(access, database):
    assert (await access.authenticate(ADMIN_KEY.encode(), None)) is access.bootstrap
    assert database.asked == []
    database.answers[api_keys.FIND] = []
    with pytest.raises(Unauthenticated):
        await access.authenticate_api_key_hash(access.bootstrap.key_hash)


async def test_a_row_of_another_hash_is_not_believed(access, database):
    database.answers[api_keys.FIND] = stored(key_hash=b"another")
    with pytest.raises(Unauthenticated):
        await access.authenticate(KEY, None)


async def test_a_jwt_where_no_issuer_is_trusted_is_told_why(access, database):
    with pytest.raises(Unauthenticated) as refused:
        await access.authenticate(b"a.b.c", None)
    assert refused.value.detail == NO_ISSUERS
    assert database.asked == []


async def test_confirming_after_a_wait_asks_only_if_some_key_changed(access, database, clock):
    caller, changes = await access.authenticate(KEY, None), access.changes()
    clock.at += TRUST_SECONDS
    await access.confirm(caller, changes)
    assert finds(database) == 1, "a memory that may not be used for others does for this"
    access.forget("mine")
    await access.confirm(caller, changes)
    assert finds(database) == 2
    access.forget("mine")
    database.answers[api_keys.FIND] = []
    with pytest.raises(Unauthenticated):
        await access.confirm(caller, changes)


async def test_confirming_refuses_a_key_that_ended_meanwhile(access, database, clock):
    database.answers[api_keys.FIND] = stored(seconds_left=0.5)
    caller, changes = await access.authenticate(KEY, None), access.changes()
    clock.at += 0.5
    with pytest.raises(Unauthenticated):
        await access.confirm(caller, changes)


async def test_use_is_recorded_once_a_minute_and_kept_where_it_could_not_be(
    access, database, clock, change_feed
):
    def recorded():
        names = [given["names"] for _, given in database.asked if "names" in given]
        database.asked.clear()
        return names

    await access.authenticate(KEY, None)
    database.answers[api_keys.NOTE_USE] = AWAY
    await access.flush_use()
    assert recorded() == [["mine"]]
    database.answers[api_keys.NOTE_USE] = [{"name": "mine"}]
    await access.flush_use()
    assert recorded() == [["mine"]], "its row was locked by somebody else"
    database.answers[api_keys.NOTE_USE] = []
    await access.flush_use()
    assert recorded() == [["mine"]]
    access.from_memory(KEY)
    await access.flush_use()
    assert recorded() == []
    clock.at += USE_RECORDED_EVERY_SECONDS
    change_feed.delivery_confirmed(clock.at)
    access.from_memory(KEY)
    await access.flush_use()
    assert recorded() == [["mine"]]
