from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.fernet import Fernet

from ignition_broker.broker.cache import TokenCache
from ignition_broker.cipher import Cipher, Misplaced, Unreadable
from ignition_broker.model import Caller, IssuedToken, Scope, is_tenant_id
from ignition_broker.oauth.tokens import AccessToken

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def token(tenant: str = "acme", version: int = 1, lifetime: float = 100, age: float = 0):
    return IssuedToken(
        tenant=tenant,
        access_token=AccessToken(f"{tenant}-{version}"),
        token_type="Bearer",
        scope="",
        issued_at=NOW - timedelta(seconds=age),
        expires_at=NOW + timedelta(seconds=lifetime - age),
        version=version,
    )


def test_a_ciphertext_opens_in_its_own_row_and_column_alone():
    cipher = Cipher([Fernet.generate_key().decode()])
    sealed = cipher.encrypt("acme", "access_token", "secret")
    assert cipher.decrypt("acme", "access_token", sealed) == "secret"
    for tenant, column in (("beta", "access_token"), ("acme", "refresh_token")):
        with pytest.raises(Misplaced):
            cipher.decrypt(tenant, column, sealed)
    with pytest.raises(Unreadable):
        Cipher([Fernet.generate_key().decode()]).decrypt("acme", "access_token", sealed)


def test_an_older_key_decrypts_and_is_told_from_the_newest():
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    sealed = Cipher([old]).encrypt("acme", "c", "v")
    both = Cipher([new, old])
    assert both.decrypt("acme", "c", sealed) == "v"
    assert not both.is_newest(sealed)
    assert both.is_newest(both.encrypt("acme", "c", "v"))


@pytest.mark.parametrize("keys", [[], ["short"], ["x" * 44]])
def test_what_is_no_fernet_key_is_refused(keys):
    with pytest.raises(ValueError, match=r".+"):
        Cipher(keys)


@pytest.mark.parametrize("name", ["a", "0", "a.b_c-d", "a" * 63])
def test_tenant_ids(name):
    assert is_tenant_id(name)


@pytest.mark.parametrize("name", ["", "A", "-a", ".a", "a" * 64, "a/b", "a\n", "é", "a b"])
def test_no_tenant_ids(name):
    assert not is_tenant_id(name)


@pytest.mark.parametrize(
    ("lifetime", "age", "min_ttl", "fit"),
    [
        (100, 0, 60, True),
        (100, 40, 60, True),
        (100, 41, 60, False),
        (100, 99, 0, True),
        (100, 100, 0, False),
        (40, 10, 60, True),
        (40, 21, 60, False),
        (0, 0, 0, False),
    ],
)
def test_a_token_lives_for_what_is_asked_or_half_of_what_it_has(lifetime, age, min_ttl, fit):
    assert token(lifetime=lifetime, age=age).lives_for(min_ttl, NOW) is fit


def test_a_key_covers_the_tenants_its_patterns_match():
    caller = Caller("x", frozenset({Scope.TOKEN}), ("acme", "beta-*"))
    assert caller.covers("acme")
    assert caller.covers("beta-1")
    assert not caller.covers("acme2")
    assert not caller.may(Scope.PROXY)
    assert Caller("a", frozenset({Scope.ADMIN}), ()).covers("anything")


def test_the_cache_is_believed_only_while_it_hears():
    cache = TokenCache(2)
    cache.put(token(), cache.mark())
    assert cache.get("acme") is None
    cache.hear()
    cache.put(token(), cache.mark())
    assert cache.get("acme") == token()
    cache.lose_hearing()
    assert cache.get("acme") is None
    assert cache.get_unheard("acme") == token()
    cache.hear()
    assert cache.get("acme") is None


def test_the_cache_is_bounded_and_drops_the_least_recently_used():
    cache = TokenCache(2)
    cache.hear()
    for tenant in ("a", "b"):
        cache.put(token(tenant), cache.mark())
    cache.get("a")
    cache.put(token("c"), cache.mark())
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert len(cache) == 2


def test_what_was_read_before_a_change_was_heard_of_is_not_kept():
    cache = TokenCache()
    cache.hear()
    mark = cache.mark()
    cache.drop("acme")
    cache.put(token(), mark)
    assert cache.get("acme") is None


def test_an_older_token_does_not_replace_a_newer_one():
    cache = TokenCache()
    cache.hear()
    cache.put(token(version=2), cache.mark())
    cache.put(token(version=1), cache.mark())
    assert cache.get("acme").version == 2
    cache.drop("acme", version=2)
    assert cache.get("acme") is not None
    cache.drop("acme", version=3)
    assert cache.get("acme") is None
