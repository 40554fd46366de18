"""Which scopes, tenants and paths may be granted together, and what the refusal says."""

from __future__ import annotations

import pytest

from ignition_broker.broker.callers.entitlements import check_entitlements
from ignition_broker.broker.errors import InvalidRequest


@pytest.mark.parametrize(
    ("scopes", "tenants", "paths"),
    [
        (["token"], ["acme"], None),
        (["token", "proxy"], ["acme", "beta-*", "*"], None),
        (["admin"], [], None),
        (["proxy"], ["*"], ["GET /v1/*"]),
    ],
)
def test_what_may_be_granted(scopes, tenants, paths):
    check_entitlements(scopes, tenants, paths)


@pytest.mark.parametrize(
    ("scopes", "tenants", "paths", "said"),
    [
        ([], ["acme"], None, "scopes: one or more of admin, proxy, token."),
        (["token", "root"], ["acme"], None, "scopes: one or more of admin, proxy, token."),
        (["token"], [], None, "tenants: name at least one"),
        (["token"], ["ACME"], None, "tenants: 'ACME' is no tenant id or pattern."),
        (["admin"], ["a/b"], None, "tenants: 'a/b' is no tenant id or pattern."),
        (["proxy"], ["*"], [], "paths: name at least one rule"),
        (["proxy"], ["*"], ["GET v1"], "paths: 'GET v1' is no rule"),
        (["proxy", "token"], ["*"], ["GET /v1/*"], "scopes: a key with paths has the scope"),
        (["admin"], ["*"], ["GET /v1/*"], "scopes: a key with paths has the scope"),
    ],
)
def test_what_may_not_be_granted_is_named_with_its_field(scopes, tenants, paths, said):
    with pytest.raises(InvalidRequest) as refused:
        check_entitlements(scopes, tenants, paths)
    assert refused.value.detail.startswith(said)
