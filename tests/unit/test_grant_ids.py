"""A grant's id says its tenant and its client, and is no tenant's id unless that is meant."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ignition_broker.grant_ids import (
    CLIENT_PATTERN,
    client_of,
    grant_id,
    is_client_name,
    quoted,
    tenant_of,
)
from ignition_broker.model import TENANT_PATTERN, is_grant_id, is_tenant_id
from ignition_broker.web.cursors import cursor_at, grant_at, is_cursor

TENANTS = st.from_regex(TENANT_PATTERN, fullmatch=True).filter(is_tenant_id)
CLIENTS = st.from_regex(CLIENT_PATTERN, fullmatch=True).filter(is_client_name)


@given(TENANTS, CLIENTS)
def test_tenant_and_client_are_read_off_the_id(tenant, client):
    grant = grant_id(tenant, client)
    assert (tenant_of(grant), client_of(grant)) == (tenant, client)
    assert is_grant_id(grant)
    assert is_tenant_id(grant) == (client == "default"), "a caller can name the default's alone"
    cursor = cursor_at(grant)
    assert is_cursor(cursor)
    assert "@" not in cursor
    assert grant_at(cursor) == grant


def test_the_default_clients_grant_has_the_tenants_id():
    assert grant_id("acme") == grant_id("acme", "default") == "acme"
    assert quoted("acme") == "'acme'"
    assert quoted("acme@sandbox") == "'acme' at the client 'sandbox'"


@pytest.mark.parametrize("name", ["", "a b", "A", "a@b", "a.b", "-a", "a" * 33, "a\n", "a/b"])
def test_what_is_no_clients_name(name):
    assert not is_client_name(name)
    assert not re.fullmatch(CLIENT_PATTERN, name) or name.endswith("\n")
    assert not is_grant_id(f"acme@{name}")
