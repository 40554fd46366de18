from __future__ import annotations

import pytest
from tests.unit.values import ManualClock, make_token

from ignition_broker.broker.change_feed import TRUST_SECONDS, ChangeFeed, ChangeFeedCache
from ignition_broker.broker.grants.token_cache import TokenCache


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def change_feed(clock):
    change_feed = ChangeFeed(clock)
    change_feed.listening_began()
    change_feed.delivery_confirmed(clock.at)
    return change_feed


def test_nothing_cached_is_current_before_a_round_trip_has_proved_listen(clock):
    change_feed = ChangeFeed(clock)
    cache = TokenCache(change_feed)
    change_feed.listening_began()
    cache.put(make_token(), cache.mark())
    assert cache.get("acme") is None
    change_feed.delivery_confirmed(clock.at)
    assert cache.get("acme") == make_token()


def test_a_stopped_process_trusts_nothing_cached_until_the_next_round_trip(clock, change_feed):
    cache = TokenCache(change_feed)
    cache.put(make_token(), cache.mark())
    clock.at += TRUST_SECONDS
    assert cache.get("acme") is None
    change_feed.delivery_confirmed(clock.at)
    assert cache.get("acme") == make_token()


def test_trust_counts_from_when_the_round_trip_began(clock, change_feed):
    cache = TokenCache(change_feed)
    cache.put(make_token(), cache.mark())
    asked_at = clock.at
    clock.at += 10
    change_feed.delivery_confirmed(asked_at)
    assert cache.get("acme") is None


def test_what_was_held_before_listening_began_anew_serves_only_when_postgres_is_away(
    clock, change_feed
):
    cache = TokenCache(change_feed)
    cache.put(make_token(), cache.mark())
    change_feed.listening_ended()
    change_feed.listening_began()
    change_feed.delivery_confirmed(clock.at)
    assert cache.get("acme") is None
    assert cache.get_stale("acme") == make_token()


def test_values_read_while_nobody_listened_are_not_trusted_later(clock, change_feed):
    cache = TokenCache(change_feed)
    change_feed.listening_ended()
    cache.put(make_token(), cache.mark())
    change_feed.listening_began()
    change_feed.delivery_confirmed(clock.at)
    assert cache.get("acme") is None


def test_the_cache_is_bounded_and_drops_the_least_recently_used(change_feed):
    cache = TokenCache(change_feed, 2)
    for tenant in ("a", "b"):
        cache.put(make_token(tenant), cache.mark())
    cache.get("a")
    cache.put(make_token("c"), cache.mark())
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert len(cache) == 2


def test_what_was_read_before_a_change_was_heard_of_is_not_kept(change_feed):
    cache = TokenCache(change_feed)
    mark = cache.mark()
    cache.forget("acme")
    cache.put(make_token(), mark)
    assert cache.get("acme") is None


def test_an_older_token_does_not_replace_a_newer_one(change_feed):
    cache = TokenCache(change_feed)
    cache.put(make_token(version=2), cache.mark())
    cache.put(make_token(version=1), cache.mark())
    assert cache.get("acme").version == 2
    cache.drop_older("acme", 2)
    assert cache.get("acme") is not None
    cache.drop_older("acme", 3)
    assert cache.get("acme") is None


def test_a_change_that_names_no_key_drops_what_it_means_and_what_is_being_read(change_feed):
    values: ChangeFeedCache[bytes, str] = ChangeFeedCache(change_feed, 10)
    values.put(b"1", "mine", values.mark())
    values.put(b"2", "other", values.mark())
    mark = values.mark()
    values.drop_where(lambda value: value == "mine")
    assert values.get(b"1") is None
    assert values.get(b"2") == "other"
    values.put(b"3", "mine", mark)
    assert values.get(b"3") is None
