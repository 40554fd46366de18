"""Patterns with ``*`` and ``?`` are matched in linear time."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ignition_broker.broker.callers.workload_issuers import WorkloadRule
from ignition_broker.model import Caller, Scope
from ignition_broker.path_rules import PathRules
from ignition_broker.redaction import Redactor
from ignition_broker.wildcards import WildcardPattern, matches_wildcards

LONGEST_CLAIM = 6000
"""About what a token of 8 KiB has room for."""
SOON_SECONDS = 0.25


def by_definition(pattern: str, text: str) -> bool:
    """Slow on some texts, and plainly right."""
    wild = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(wild, text, re.DOTALL) is not None


@settings(max_examples=3000, deadline=None)
@given(pattern=st.text("ab*?[.\n", max_size=9), text=st.text("ab[.\n", max_size=9))
def test_a_pattern_means_what_it_is_defined_to_mean(pattern, text):
    assert matches_wildcards(pattern, text) == by_definition(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("*a*a*a*b", "a" * LONGEST_CLAIM),
        ("*a" * 100 + "*b", "a" * LONGEST_CLAIM),
        ("a*" * 400 + "b", "a" * LONGEST_CLAIM),
        ("*" + "?a" * 50 + "*b?*c", "a" * LONGEST_CLAIM),
        ("*?" * 1000 + "b", "a" * LONGEST_CLAIM),
        ("*" * 1000 + "b", "a" * LONGEST_CLAIM),
        ("*" + "a?" * 1500 + "b*", "a" * LONGEST_CLAIM),
        ("*ab*ba*ab*c", "ab" * (LONGEST_CLAIM // 2)),
    ],
    ids=lambda value: value[:12],
)
def test_no_pattern_takes_long_on_a_text_that_is_made_for_it(pattern, text):
    rule = WorkloadRule.model_validate(
        {"match": {"sub": pattern}, "scopes": ["token"], "tenants": ["acme"]}
    )
    began_at = time.perf_counter()
    assert not WildcardPattern(pattern).matches(text)
    assert not rule.matches({"sub": text})
    assert time.perf_counter() - began_at < SOON_SECONDS


def test_no_tenants_pattern_takes_long():
    caller = Caller("service", frozenset({Scope.TOKEN}), ("*a" * 31 + "b",))
    began_at = time.perf_counter()
    assert not caller.covers("a" * 63)
    assert time.perf_counter() - began_at < SOON_SECONDS


def test_no_path_rule_takes_long():
    rules = PathRules([f"GET /{'a' * 990}*"] * 100)
    began_at = time.perf_counter()
    assert not rules.allows("GET", b"/" + b"a" * 989 + b"/" + b"a" * 60_000)
    assert time.perf_counter() - began_at < SOON_SECONDS


@pytest.mark.parametrize(
    "piece",
    [
        *("eyJ-", "://", "secret", "secret ", "bearer ", "code=", "ibk_", "a-", "aB1", "gAAAA"),
        *("authorization: ", "x-key: ", "cookie=", "token=", "token ", "cookie \t", "-key   "),
        *("\\\\'", "'authorization', b'", '"cookie": "', "cookie'", '\\"authorization\\": '),
    ],
)
def test_no_line_takes_the_redactor_long(piece):
    """A path or a header of 64 KiB may come to stand in one."""
    began_at = time.perf_counter()
    Redactor().text(piece * (60_000 // len(piece)))
    assert time.perf_counter() - began_at < SOON_SECONDS * 4
