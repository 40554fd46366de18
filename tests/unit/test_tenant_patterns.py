from __future__ import annotations

import pytest

from ignition_broker import tenant_patterns
from ignition_broker.model import Caller, Scope
from ignition_broker.tenant_patterns import TenantPatterns, is_tenant_pattern


@pytest.mark.parametrize(
    ("patterns", "tenant", "covered"),
    [
        (("acme",), "acme", True),
        (("acme",), "acme2", False),
        (("acme",), "xacme", False),
        (("beta-*",), "beta-1", True),
        (("beta-*",), "beta-", True),
        (("beta-*",), "beta", False),
        (("a?c",), "abc", True),
        (("a?c",), "ac", False),
        (("a.c",), "abc", False),
        (("acme", "beta-*"), "beta-1", True),
        (("*",), "anything", True),
        ((), "acme", False),
    ],
)
def test_a_tenant_is_covered_where_a_pattern_matches_all_of_its_id(patterns, tenant, covered):
    matched = TenantPatterns(patterns)
    assert matched.cover(tenant) is covered
    assert matched.cover(tenant) is covered, "from memory too"


def test_answers_are_remembered_for_so_many_tenants_and_stay_right(monkeypatch):
    monkeypatch.setattr(tenant_patterns, "_MOST_REMEMBERED", 3)
    patterns = TenantPatterns(["a*"])
    for number in range(10):
        assert patterns.cover(f"a{number}")
        assert not patterns.cover(f"b{number}")
        assert len(patterns._remembered) <= 3


@pytest.mark.parametrize("text", ["acme", "beta-*", "*", "?", "a.b_c-?", "a" * 63])
def test_ids_and_patterns_are_told(text):
    assert is_tenant_pattern(text)


@pytest.mark.parametrize("text", ["", "ACME", "a/b", "-a", "a b", "a" * 64, "a\n", "a%"])
def test_what_no_tenant_can_be_called_is_no_pattern(text):
    assert not is_tenant_pattern(text)


def test_an_admin_covers_every_tenant_and_others_their_patterns():
    assert Caller("admin", frozenset({Scope.ADMIN}), ("acme",)).covers("other")
    assert not Caller("service", frozenset({Scope.TOKEN}), ("acme",)).covers("other")
