"""An API key is replaced: for how long the old one works, and when the new one ends."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from tests.unit.scripted_database import ScriptedDatabase
from tests.unit.values import ManualClock

from ignition_broker.broker.callers.api_key_rotation import (
    LONGEST_GRACE_SECONDS,
    rotate_api_key,
)
from ignition_broker.broker.callers.api_keys import api_key_hash
from ignition_broker.broker.errors import InvalidRequest, NotFound
from ignition_broker.model import Actor
from ignition_broker.storage import api_keys, audit

ACTOR = Actor("jo", "request-1")
CLOCK = ManualClock()
END = CLOCK.now() + timedelta(days=9)
ROW = {
    "name": "ops",
    "scopes": ["token"],
    "tenants": ["acme"],
    "created_at": CLOCK.now(),
    "expires_at": END,
    "revoked_at": None,
    "last_used_at": None,
    "paths": None,
    "allowance_weight": 1,
    "allowance_reserve": 0,
    "created_by": "ops",
    "previous_works_until": None,
}


def holding(*, is_expired: bool = False) -> ScriptedDatabase:
    locked = {"key_hash": b"old", "is_expired": is_expired}
    return ScriptedDatabase({api_keys.LOCK: [locked], api_keys.REPLACE: [ROW]})


async def rotate(database, *, grace_seconds: float = 60, expires_at=None):
    return await rotate_api_key(
        database, CLOCK, "ops", grace_seconds=grace_seconds, expires_at=expires_at, actor=ACTOR
    )


async def test_the_new_key_is_stored_by_its_hash_and_the_old_one_gets_the_grace():
    database = holding()
    listed, api_key = await rotate(database, grace_seconds=60)
    assert listed.expires_at == END
    (stored,) = database.parameters_of(api_keys.REPLACE)
    assert (stored["name"], stored["key_hash"]) == ("ops", api_key_hash(api_key))
    assert stored["expires_at"] is None, "as it was"
    assert {given["grace"] for _asked, given in database.committed if "grace" in given} == {60}
    assert api_key not in repr(database.asked)


async def test_the_audit_event_has_the_grace_and_the_end_that_is_stored():
    database = holding()
    await rotate(database, grace_seconds=0)
    (event,) = database.parameters_of(audit.APPEND)
    assert (event["action"], event["actor"]) == ("api_key_rotate", "jo")
    assert json.loads(event["detail"]) == {
        "key": "ops",
        "grace_seconds": 0,
        "expires_at": END.isoformat(),
    }


@pytest.mark.parametrize("grace", [-1, LONGEST_GRACE_SECONDS + 1, float("nan"), float("inf")])
async def test_a_grace_out_of_range_asks_no_database(grace):
    database = holding()
    with pytest.raises(InvalidRequest, match="grace_seconds"):
        await rotate(database, grace_seconds=grace)
    assert database.asked == []


async def test_an_expired_key_needs_a_later_end():
    database = holding(is_expired=True)
    with pytest.raises(InvalidRequest, match="expires_at"):
        await rotate(database)
    assert database.committed == []
    await rotate(database, expires_at=END)
    (stored,) = database.parameters_of(api_keys.REPLACE)
    assert stored["expires_at"] == END


async def test_an_end_in_the_past_is_refused():
    with pytest.raises(InvalidRequest, match="expires_at"):
        await rotate(holding(), expires_at=CLOCK.now())


async def test_a_name_that_no_live_key_has_is_not_found():
    database = ScriptedDatabase()
    with pytest.raises(NotFound):
        await rotate(database)
    assert database.committed == []
