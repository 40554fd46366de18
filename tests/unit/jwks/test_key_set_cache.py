"""When the keys of an issuer are fetched, and for how long they count."""

from __future__ import annotations

import asyncio
import json

import pytest
from joserfc.jwk import RSAKey
from tests.unit.values import ManualClock

from ignition_broker.jwks.discovery import FetchFailed
from ignition_broker.jwks.key_set_cache import KeySetCache, KeyTimes
from ignition_broker.jwks.public_keys import parse_key_set

ONE, TWO = (RSAKey.generate_key(2048, {"kid": kid}).as_dict(private=False) for kid in ("1", "2"))


class Issuer:
    def __init__(self) -> None:
        self.keys = [ONE]
        self.fetches = 0
        self.error: Exception | None = None
        self.seconds = 0.0

    async def fetch(self) -> bytes:
        self.fetches += 1
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return json.dumps({"keys": self.keys}).encode()


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def cache(issuer, clock) -> KeySetCache:
    times = KeyTimes(
        lifetime_seconds=300, stale_seconds=1000, pause_seconds=10, patience_seconds=0.05
    )
    return KeySetCache("https://issuer.test", issuer.fetch, parse_key_set, clock, times)


def kids(cache: KeySetCache) -> list[str | None]:
    return [key.kid for key in cache.held or ()]


async def test_keys_are_fetched_once_in_their_lifetime(cache, issuer, clock):
    for _ in range(3):
        await asyncio.gather(*(cache.freshen() for _ in range(5)))
    assert (issuer.fetches, kids(cache), cache.version) == (1, ["1"], 1)
    clock.at += 301
    await cache.freshen()
    assert (issuer.fetches, cache.version) == (2, 1)


async def test_a_new_key_changes_the_version_and_is_fetched_after_a_pause_alone(
    cache, issuer, clock
):
    await cache.freshen()
    issuer.keys = [ONE, TWO]
    await cache.renew()
    assert kids(cache) == ["1"]
    clock.at += 10
    await cache.renew()
    assert (kids(cache), cache.version) == (["1", "2"], 2)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (FetchFailed("https://issuer.test answered 503."), "answered 503"),
        (FileNotFoundError(2, "none"), "can't be read (FileNotFoundError)"),
        (ValueError("odd"), "no JWK set"),
    ],
)
async def test_while_they_can_not_be_fetched_those_that_are_held_count_for_a_while(
    cache, issuer, clock, error, told
):
    await cache.freshen()
    issuer.error = error
    clock.at += 301
    await cache.freshen()
    assert kids(cache) == ["1"]
    assert told in cache.failure
    clock.at += 700
    assert cache.held is None
    issuer.error = None
    await cache.freshen()
    assert (kids(cache), cache.failure) == (["1"], None)


async def test_a_slow_issuer_holds_nobody_up_where_keys_are_held(cache, issuer, clock):
    await cache.freshen()
    clock.at += 301
    issuer.seconds = 30
    async with asyncio.timeout(1):
        await cache.freshen()
    assert kids(cache) == ["1"]
