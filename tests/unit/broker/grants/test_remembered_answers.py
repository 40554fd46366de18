from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.unit.values import NOW, ManualClock, make_token

from ignition_broker.broker.change_feed import ChangeFeed
from ignition_broker.broker.grants import remembered_answers
from ignition_broker.broker.grants.remembered_answers import (
    KnownVersion,
    KnownVersions,
    RememberedAnswer,
    RememberedAnswers,
    RememberedRevocations,
)
from ignition_broker.broker.grants.token_cache import TokenCache
from ignition_broker.cipher import Cipher
from ignition_broker.model import GrantStatus
from ignition_broker.storage.sealed_tokens import Schedule, SealedTokens, Stored

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock():
    return ManualClock()


def answer(version: int = 1, size: int = 10) -> RememberedAnswer:
    sealed = SealedTokens(b"a" * size, b"r" * size, "Bearer", "read", 60.0, "fingerprint")
    return RememberedAnswer(Stored(version, MOMENT, MOMENT, MOMENT), sealed, Schedule(30, 0), NOW)


def test_a_lower_version_whose_tokens_are_older_than_what_was_seen_is_behind():
    known = KnownVersion(8, GrantStatus.CONNECTED, seen_at=100.0)
    assert known.is_ahead_of(7, issued_since=99.0)
    assert known.is_ahead_of(0, issued_since=float("-inf"))
    assert not known.is_ahead_of(8, issued_since=99.0)
    assert not known.is_ahead_of(7, issued_since=101.0), "renewed or connected since"


def test_versions_are_bounded_and_the_newest_stay(monkeypatch):
    monkeypatch.setattr(remembered_answers, "MOST_VERSIONS", 2)
    known = KnownVersions()
    for number, tenant in enumerate(("a", "b", "a", "c")):
        known.note(tenant, number, GrantStatus.CONNECTED, seen_at=float(number))
    assert known.of("b") is None
    assert [known.of(tenant).version for tenant in ("a", "c")] == [2, 3]


def test_disconnects_of_late_are_named():
    known = KnownVersions()
    for at, (tenant, status) in enumerate(
        [("old", "disconnected"), ("on", "connected"), ("off", "disconnected")]
    ):
        known.note(tenant, 1, GrantStatus(status), seen_at=float(at))
    assert list(known.disconnected_since(1.0)) == ["off"]


def test_answers_are_kept_for_their_time(clock):
    answers = RememberedAnswers(clock, seconds=600)
    answers.remember("acme", answer(1))
    clock.at += 300
    answers.remember("beta", answer(1))
    answers.remember("acme", answer(2))
    clock.at += 599
    assert answers.of("acme") == answer(2)
    assert answers.tenants() == ["beta", "acme"]
    clock.at += 1
    assert answers.of("beta") is None
    assert len(answers) == 0


def test_none_is_kept_where_the_setting_says_so(clock):
    answers = RememberedAnswers(clock, seconds=0)
    answers.remember("acme", answer())
    assert answers.of("acme") is None
    assert len(answers) == 0


@pytest.mark.parametrize("bound", ["MOST_ANSWERS", "MOST_BYTES"])
def test_answers_are_bounded_by_their_number_and_by_their_bytes(monkeypatch, clock, bound):
    monkeypatch.setattr(remembered_answers, bound, {"MOST_ANSWERS": 3, "MOST_BYTES": 60}[bound])
    answers = RememberedAnswers(clock, seconds=600)
    for number in range(5):
        answers.remember(f"t{number}", answer())
        answers.remember(f"t{number}", answer())
    assert answers.tenants() == ["t2", "t3", "t4"]
    answers.forget("t3")
    answers.remember("t5", answer())
    assert answers.tenants() == ["t2", "t4", "t5"], "what was forgotten makes room"


def test_a_remembered_answer_shows_nothing_of_its_tokens():
    cipher = Cipher(["MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="])
    sealed = SealedTokens(
        cipher.encrypt("acme", "access_token", "clear"),
        cipher.encrypt("acme", "refresh_token", "clear"),
        "Bearer",
        "read",
        60.0,
        cipher.fingerprint,
    )
    kept = RememberedAnswer(Stored(1, MOMENT, MOMENT, MOMENT), sealed, Schedule(30, 0), NOW)
    assert "clear" not in repr(kept)
    assert "gAAAA" not in repr(kept)


def test_revocations_are_kept_for_their_time(clock):
    revocations = RememberedRevocations(clock, seconds=600)
    revocations.remember("old", 1)
    clock.at += 400
    revocations.remember("new", 2)
    clock.at += 300
    assert revocations.all() == [("new", 2)]


def test_memory_compares_versions_within_one_epoch_of_the_change_feed_alone(clock):
    change_feed = ChangeFeed(clock)
    change_feed.listening_began()
    change_feed.delivery_confirmed(clock.at)
    cache = TokenCache(change_feed)
    cache.put(make_token(version=8), cache.mark())
    cache.put(make_token(version=7), cache.mark())
    assert cache.get("acme").version == 8, "a statement that was late"
    change_feed.listening_ended()
    change_feed.listening_began()
    change_feed.delivery_confirmed(clock.at)
    cache.put(make_token(version=7), cache.mark())
    assert cache.get("acme").version == 7, "the database went back; no call reads it again"


def test_a_row_that_is_known_to_have_gone_back_replaces_what_memory_holds(clock):
    change_feed = ChangeFeed(clock)
    change_feed.listening_began()
    change_feed.delivery_confirmed(clock.at)
    cache = TokenCache(change_feed)
    cache.put(make_token(version=8), cache.mark())
    cache.replace(make_token(version=7), cache.mark())
    assert cache.get("acme").version == 7
