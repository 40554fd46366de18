"""API keys: created, listed, revoked; what is stored of them, and what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from tests.unit.scripted_database import ScriptedDatabase
from tests.unit.values import ManualClock

from ignition_broker.broker.callers.api_keys import (
    BOOTSTRAP_ADMIN,
    api_key_hash,
    create_api_key,
    future_expiry,
    list_api_keys,
    revoke_api_key,
)
from ignition_broker.broker.errors import Conflict, InvalidRequest, NotFound
from ignition_broker.model import Actor
from ignition_broker.storage import api_keys, audit

ACTOR = Actor("cli", "request-1")
CLOCK = ManualClock()
NOW = CLOCK.now()
ROW = {
    "name": "ops",
    "scopes": ["token"],
    "tenants": ["acme"],
    "created_at": NOW,
    "expires_at": None,
    "revoked_at": None,
    "last_used_at": None,
    "paths": None,
    "allowance_weight": 1,
    "allowance_reserve": 0,
    "created_by": "ops",
    "previous_works_until": None,
}


async def create(database, **changes):
    fields = {"name": "ops", "scopes": ["token"], "tenants": ["acme"], "expires_at": None}
    return await create_api_key(database, CLOCK, **{**fields, **changes}, actor=ACTOR)


async def test_the_key_itself_is_in_no_statement_but_by_its_hash():
    database = ScriptedDatabase({api_keys.CREATE: [ROW]})
    listed, api_key = await create(database)
    assert listed.name == "ops"
    assert api_key.startswith("ibk_")
    assert len(api_key) > 40
    (stored,) = database.parameters_of(api_keys.CREATE)
    assert stored["key_hash"] == api_key_hash(api_key)
    assert api_key not in repr(database.asked)


async def test_two_keys_differ():
    database = ScriptedDatabase({api_keys.CREATE: [ROW]})
    assert (await create(database))[1] != (await create(database))[1]


async def test_the_audit_event_says_who_gave_what_to_whom():
    database = ScriptedDatabase({api_keys.CREATE: [ROW]})
    await create(database, scopes=["proxy"], paths=["GET /v1/*"])
    (event,) = database.parameters_of(audit.APPEND)
    assert (event["action"], event["outcome"]) == ("api_key_create", "done")
    assert (event["actor"], event["request_id"]) == ("cli", "request-1")
    assert json.loads(event["detail"]) == {
        "key": "ops",
        "scopes": ["proxy"],
        "tenants": ["acme"],
        "paths": ["GET /v1/*"],
        "allowance_weight": 1,
        "allowance_reserve": 0,
    }


async def test_what_is_named_twice_is_stored_once():
    database = ScriptedDatabase({api_keys.CREATE: [ROW]})
    await create(
        database, scopes=["proxy", "proxy"], tenants=["a", "b", "a"], paths=["GET /a", "GET /a"]
    )
    (stored,) = database.parameters_of(api_keys.CREATE)
    assert (stored["scopes"], stored["tenants"]) == (["proxy"], ["a", "b"])
    assert stored["paths"] == ["GET /a"]


async def test_a_live_key_of_that_name_is_a_conflict_and_nothing_is_stored():
    database = ScriptedDatabase({api_keys.CREATE: []})
    with pytest.raises(Conflict):
        await create(database)
    assert database.committed == []


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 64, "a\n", BOOTSTRAP_ADMIN, "CLI", "dev"])
async def test_a_malformed_or_reserved_name_asks_no_database(name):
    database = ScriptedDatabase()
    with pytest.raises(InvalidRequest) as refused:
        await create(database, name=name)
    assert refused.value.detail.startswith("name: ")
    assert database.asked == []


async def test_the_expiry_is_stored_in_utc_and_must_be_to_come():
    database = ScriptedDatabase({api_keys.CREATE: [ROW]})
    east = timezone(timedelta(hours=2))
    await create(database, expires_at=(NOW + timedelta(hours=1)).astimezone(east))
    (stored,) = database.parameters_of(api_keys.CREATE)
    assert stored["expires_at"] == NOW + timedelta(hours=1)
    assert stored["expires_at"].tzinfo is UTC
    for past in (NOW, NOW - timedelta(seconds=1)):
        with pytest.raises(InvalidRequest, match="past"):
            await create(database, expires_at=past)


def test_an_expiry_outside_of_the_calendar_is_refused():
    last = datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-12)))
    with pytest.raises(InvalidRequest, match="9999"):
        future_expiry(last, NOW)


async def test_a_revocation_is_audited_and_an_unknown_name_is_not():
    database = ScriptedDatabase({api_keys.REVOKE: [{"name": "ops"}]})
    await revoke_api_key(database, "ops", ACTOR)
    (event,) = database.parameters_of(audit.APPEND)
    assert (event["action"], json.loads(event["detail"])) == ("api_key_revoke", {"key": "ops"})
    nobody = ScriptedDatabase()
    with pytest.raises(NotFound):
        await revoke_api_key(nobody, "nobody", ACTOR)
    assert nobody.committed == []


async def test_the_list_has_what_an_admin_may_see():
    (listed,) = await list_api_keys(ScriptedDatabase({api_keys.LIST: [ROW]}))
    assert (listed.name, listed.scopes, listed.tenants) == ("ops", ("token",), ("acme",))
    assert not hasattr(listed, "key_hash")
