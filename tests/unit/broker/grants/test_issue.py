"""Which token a caller is given: from memory, from the row, a new one, or the best there is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.values import NOW, ManualClock, make_grant, make_token

from ignition_broker.broker.change_feed import ChangeFeed
from ignition_broker.broker.errors import (
    NotRenewable,
    ProviderUnavailable,
    RenewedTooOften,
    Unavailable,
)
from ignition_broker.broker.grants.issue import Issuer
from ignition_broker.broker.grants.token_cache import TokenCache
from ignition_broker.model import Actor
from ignition_broker.storage.errors import StorageUnavailable

ADMIN = Actor("root")


class FakeRefresher:
    """``stored``: what a read finds; an exception is raised. ``fresh``: what a renewal gives."""

    def __init__(self) -> None:
        self.stored = make_token(age=90)
        self.fresh = make_token(version=2)
        self.reads = 0
        self.asked = []

    async def read(self, _tenant):
        self.reads += 1
        if isinstance(self.stored, Exception):
            raise self.stored
        return make_grant(self.stored), self.stored

    async def renew(self, _tenant, want, actor):
        self.asked.append((want, actor))
        if isinstance(self.fresh, Exception):
            raise self.fresh
        return self.fresh


class NotingDatabase:
    """Answers with the tenants that somebody else has locked."""

    def __init__(self) -> None:
        self.answers = []
        self.writes = 0

    async def single(self, _work):
        self.writes += 1
        answer = self.answers.pop(0) if self.answers else []
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def cache(clock):
    change_feed = ChangeFeed(clock)
    change_feed.listening_began()
    change_feed.delivery_confirmed(clock.at)
    return TokenCache(change_feed)


@pytest.fixture
def refresher():
    return FakeRefresher()


@pytest.fixture
def database():
    return NotingDatabase()


@pytest.fixture
def issuer(database, cache, refresher, clock):
    return Issuer(database, cache, refresher, clock, lead_seconds=10)


def hold(cache, token):
    cache.put(token, cache.mark())


async def test_memory_answers_without_a_read_while_its_token_lives_as_asked(
    issuer, cache, refresher
):
    hold(cache, make_token(age=40))
    assert issuer.held("acme", 60).version == 1
    assert issuer.held("acme", 61) is None
    assert issuer.held("beta", 1) is None
    assert (await issuer.issue("acme", min_ttl_seconds=60)).version == 1
    assert (refresher.reads, refresher.asked) == (0, [])


async def test_a_token_with_too_little_left_is_renewed_for_the_caller(issuer, refresher):
    token = await issuer.issue("acme", min_ttl_seconds=60, actor=ADMIN)
    assert token is refresher.fresh
    ((want, actor),) = refresher.asked
    assert (want.seen_version, want.min_ttl_seconds, want.on_callers_word) == (1, 60, True)
    assert actor is ADMIN


@pytest.mark.parametrize("failure", [ProviderUnavailable("down"), Unavailable("away")])
async def test_while_no_new_token_can_be_had_one_that_lives_for_the_least_will_do(
    issuer, refresher, failure
):
    refresher.fresh = failure
    token = await issuer.issue("acme", min_ttl_seconds=60, at_worst_seconds=10)
    assert token is refresher.stored
    with pytest.raises(type(failure)):
        await issuer.issue("acme", min_ttl_seconds=60, at_worst_seconds=11)
    with pytest.raises(type(failure)):
        await issuer.issue("acme", min_ttl_seconds=60)


async def test_whoever_asks_for_more_than_tokens_ever_live_gets_any_live_one_at_worst(
    issuer, refresher, clock
):
    refresher.fresh = ProviderUnavailable("down")
    assert await issuer.issue("acme", min_ttl_seconds=3600) is refresher.stored
    clock.at += 10
    with pytest.raises(ProviderUnavailable):
        await issuer.issue("acme", min_ttl_seconds=3600)


async def test_a_token_that_cannot_be_renewed_serves_for_the_seconds_that_end_it(issuer, refresher):
    refresher.stored = replace(make_token(age=90), is_renewable=False)
    refresher.fresh = NotRenewable("acme", None)
    token = await issuer.issue("acme", min_ttl_seconds=60, ending_seconds=5)
    assert token is refresher.stored
    assert refresher.asked == [], "nobody is asked for what is not to be had"
    with pytest.raises(NotRenewable):
        await issuer.issue("acme", min_ttl_seconds=60, ending_seconds=11)


async def test_while_postgres_is_away_an_older_token_in_memory_serves(
    issuer, cache, refresher, clock
):
    hold(cache, make_token(age=40))
    clock.at += 5
    assert cache.get("acme") is None, "the feed is not heard of any more"
    refresher.stored = Unavailable("away")
    assert (await issuer.issue("acme", min_ttl_seconds=50)).version == 1
    assert refresher.reads == 1
    with pytest.raises(Unavailable):
        await issuer.issue("acme", min_ttl_seconds=56)


async def test_a_rejected_token_that_is_no_longer_the_current_one_causes_no_renewal(
    issuer, cache, refresher
):
    hold(cache, make_token(version=2))
    old = make_token(version=1)
    token = await issuer.renew("acme", rejected_sha256=old.sha256, actor=ADMIN)
    assert token.version == 2
    assert refresher.asked == []


async def test_a_rejected_current_token_is_renewed_by_its_version(issuer, cache, refresher):
    current = make_token(version=1)
    hold(cache, current)
    assert await issuer.renew("acme", rejected_sha256=current.sha256, actor=ADMIN)
    assert await issuer.renew_refused("acme", rejected_sha256=current.sha256)
    (first, second) = [want for want, _actor in refresher.asked]
    assert (first.seen_version, first.rejected_sha256) == (1, current.sha256)
    assert first.on_callers_word
    assert not second.on_callers_word, "the proxy saw it rejected"


async def test_a_token_that_memory_does_not_know_is_looked_for_in_the_row(issuer, cache, refresher):
    # Expired, so that it does not meet what the caller wants; the caller names a newer one.
    hold(cache, make_token(version=1, age=101))
    refresher.stored = make_token(version=2)
    await issuer.renew("acme", rejected_sha256=refresher.stored.sha256, actor=ADMIN)
    ((want, _actor),) = refresher.asked
    assert want.seen_version == 2


async def test_a_forced_renewal_that_is_paced_is_refused(issuer, cache, refresher):
    hold(cache, make_token())
    refresher.fresh = RenewedTooOften("too often")
    with pytest.raises(RenewedTooOften):
        await issuer.renew("acme", rejected_sha256=make_token().sha256, actor=ADMIN)


async def test_an_admin_renews_whatever_is_stored(issuer, refresher):
    refresher.stored = make_token()
    assert await issuer.renew_anyway("acme", ADMIN) is refresher.fresh
    ((want, actor),) = refresher.asked
    assert (want.seen_version, want.is_urgent, actor) == (1, True, ADMIN)


async def test_use_is_noted_once_a_lifetime_and_again_where_it_could_not_be(
    issuer, cache, database, clock
):
    hold(cache, make_token())
    assert issuer.held("acme", 1)
    assert issuer.held("acme", 1)
    database.answers = [["acme"], StorageUnavailable("away"), []]
    for writes in (1, 2, 3):
        await issuer.flush_use()
        assert database.writes == writes, "locked, then away, then noted"
    assert issuer.held("acme", 1)
    await issuer.flush_use()
    assert database.writes == 3
    clock.at = NOW + 100
    await issuer.issue("acme", min_ttl_seconds=1)
    await issuer.flush_use()
    assert database.writes == 4
