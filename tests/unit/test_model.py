from __future__ import annotations

import pytest
from tests.unit.values import NOW, make_token

from ignition_broker.model import Caller, Scope, is_tenant_id


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
    assert make_token(lifetime=lifetime, age=age).lives_for(min_ttl, NOW) is fit


def test_a_key_covers_the_tenants_its_patterns_match():
    caller = Caller("x", frozenset({Scope.TOKEN}), ("acme", "beta-*"))
    assert caller.covers("acme")
    assert caller.covers("beta-1")
    assert not caller.covers("acme2")
    assert not caller.may(Scope.PROXY)
    assert Caller("a", frozenset({Scope.ADMIN}), ()).covers("anything")
