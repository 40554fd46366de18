"""`BROKER_JWT_ISSUERS`: what is wrong in it is named, and a rule matches what it says alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ignition_broker.broker.callers.workload_issuers import (
    MalformedIssuers,
    TrustedIssuer,
    WorkloadRule,
    parse_issuers,
)

RULE = {"match": {"sub": "invoicing"}, "scopes": ["token"], "tenants": ["acme"]}
ISSUER = {"issuer": "https://issuer.example.com", "audience": "ignition-broker", "rules": [RULE]}


def parsed(**changes) -> TrustedIssuer:
    return parse_issuers(json.dumps([{**ISSUER, **changes}]))[0]


def test_the_example_in_the_documentation_is_sound(tmp_path):
    page = (Path(__file__).parents[4] / "docs" / "workload-identity.md").read_text()
    example = json.loads(page.split("```json\n")[1].split("```")[0])
    for name in ("ca_file", "token_file"):
        example[0][name] = str(tmp_path / name)
        (tmp_path / name).touch()
    production = parse_issuers(json.dumps(example))[0]
    pod = {"sub": "system:serviceaccount:reports:x", "kubernetes.io": {"namespace": "reports"}}
    assert production.rule_for(pod) == production.rules[1]


def rule(**match) -> WorkloadRule:
    return WorkloadRule.model_validate({**RULE, "match": match})


def test_without_the_setting_no_issuer_is_trusted():
    assert parse_issuers("") == parse_issuers(" \n") == ()
    assert parse_issuers("[]") == []


def test_an_issuer_is_called_by_its_host_unless_it_is_named():
    assert parsed().label == "issuer.example.com"
    assert parsed(name="kube").label == "kube"


def test_the_first_rule_that_matches_decides_and_rules_do_not_add_up():
    wider = {"match": {"sub": "*"}, "scopes": ["token", "proxy"], "tenants": ["*"]}
    issuer = parsed(rules=[RULE, wider])
    assert issuer.rule_for({"sub": "invoicing"}) == issuer.rules[0]
    assert issuer.rule_for({"sub": "other"}) == issuer.rules[1]
    assert parsed().rule_for({"sub": "other"}) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "must be a JSON list"),
        ("{}", "must be a JSON list"),
        ("[7]", "item 1: "),
        (json.dumps([ISSUER, {**ISSUER, "audience": ""}]), "item 2.audience: "),
        (json.dumps([ISSUER, ISSUER]), "an issuer is named twice"),
        (
            json.dumps([ISSUER, {**ISSUER, "issuer": "https://issuer.example.com/realm"}]),
            "give each a 'name'",
        ),
    ],
)
def test_where_the_list_is_wrong_is_told(text, told):
    with pytest.raises(MalformedIssuers) as refused:
        parse_issuers(text)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"issuer": None}, "item 1.issuer: "),
        ({"issuer": "http://issuer.example.com"}, "item 1.issuer: must be an https URL"),
        ({"issuer": "https://user@issuer.example.com"}, "item 1.issuer: must be an https URL"),
        ({"issuer": "https://issuer.example.com:x"}, "item 1.issuer: must be an https URL"),
        ({"jwks_url": "http://issuer.example.com/jwks"}, "item 1.jwks_url: must be an https URL"),
        ({"audience": 7}, "item 1.audience: "),
        ({"audiences": ["x"]}, "item 1.audiences: "),
        ({"name": "a b"}, "item 1.name: "),
        ({"ca_file": "/nowhere/ca.crt"}, "item 1.ca_file: no such file"),
        ({"token_file": "/nowhere/token"}, "item 1.token_file: no such file"),
        ({"longest_lifetime_seconds": 1}, "item 1.longest_lifetime_seconds: "),
        ({"rules": []}, "item 1.rules: "),
        ({"rules": [{**RULE, "match": {}}]}, "item 1.rules.1.match: "),
        ({"rules": [{**RULE, "match": {"sub": None}}]}, "item 1.rules.1: match: "),
        ({"rules": [{**RULE, "match": {"sub": []}}]}, "item 1.rules.1: match: "),
        ({"rules": [{**RULE, "match": {"a": {"b": {}}}}]}, "item 1.rules.1: match: "),
        ({"rules": [RULE, {**RULE, "scopes": ["root"]}]}, "item 1.rules.2: scopes: one or more"),
        ({"rules": [{**RULE, "scopes": []}]}, "item 1.rules.1: scopes: one or more"),
        ({"rules": [{**RULE, "scopes": "token"}]}, "item 1.rules.1.scopes: "),
        ({"rules": [{**RULE, "tenants": []}]}, "item 1.rules.1: tenants: name at least one"),
        ({"rules": [{**RULE, "tenants": ["A"]}]}, "item 1.rules.1: tenants: "),
        ({"rules": [{**RULE, "paths": ["GET /x"]}]}, "item 1.rules.1: scopes: "),
        ({"rules": [{**RULE, "tenant": "x"}]}, "item 1.rules.1.tenant: "),
    ],
)
def test_what_is_wrong_in_an_issuer_is_told_by_its_place(changes, told):
    fields = {name: value for name, value in {**ISSUER, **changes}.items() if value is not None}
    with pytest.raises(MalformedIssuers) as refused:
        parse_issuers(json.dumps([fields]))
    assert str(refused.value).startswith(told)
    assert "\n" not in str(refused.value)


def test_no_value_is_shown():
    with pytest.raises(MalformedIssuers) as refused:
        parsed(issuer="http://hunter2.example.com", rules=["hunter3"])
    assert "hunter" not in str(refused.value)


@pytest.mark.parametrize(
    ("match", "claims"),
    [
        ({"sub": "a"}, {"sub": "a", "more": 1}),
        ({"sub": "system:*:invoicing"}, {"sub": "system:serviceaccount:billing:invoicing"}),
        ({"sub": "v?"}, {"sub": "v1"}),
        ({"sub": "[ab]"}, {"sub": "[ab]"}),
        ({"sub": ["a", "b"]}, {"sub": "b"}),
        ({"groups": "x"}, {"groups": ["w", "x"]}),
        ({"level": 3, "is_internal": True}, {"level": 3, "is_internal": True}),
        ({"kubernetes.io": {"pod": {"name": "x-*"}}}, {"kubernetes.io": {"pod": {"name": "x-1"}}}),
        ({"accounts": {"id": 7}}, {"accounts": [{"id": 6}, {"id": 7}]}),
    ],
)
def test_a_rule_matches(match, claims):
    assert rule(**match).matches(claims)


@pytest.mark.parametrize(
    ("match", "claims"),
    [
        ({"sub": "a"}, {}),
        ({"sub": "a"}, {"sub": "A"}),
        ({"sub": "a"}, {"sub": "ab"}),
        ({"sub": "a"}, {"sub": "a\n"}),
        ({"sub": "a"}, {"sub": None}),
        ({"sub": "*"}, {}),
        ({"sub": "*"}, {"sub": 7}),
        ({"sub": "[ab]"}, {"sub": "a"}),
        ({"sub": "a.c"}, {"sub": "abc"}),
        ({"sub": "a", "aud": "x"}, {"sub": "a"}),
        ({"groups": "x"}, {"groups": []}),
        ({"groups": "x"}, {"groups": [["x"]]}),
        ({"groups": "x"}, {"groups": {"x": 1}}),
        ({"level": 1}, {"level": True}),
        ({"level": 1}, {"level": "1"}),
        ({"is_internal": True}, {"is_internal": 1}),
        ({"kubernetes.io": {"namespace": "x"}}, {"kubernetes.io": "x"}),
        ({"kubernetes.io": {"namespace": "x"}}, {"kubernetes.io": {}}),
    ],
)
def test_a_rule_does_not_match(match, claims):
    assert not rule(**match).matches(claims)
