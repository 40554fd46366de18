"""Re-encryption pass by pass: what is rewritten, what is left, what can't be read."""

from __future__ import annotations

import json

from cryptography.fernet import Fernet
from tests.unit.scripted_database import ScriptedDatabase
from tests.unit.values import ManualClock

from ignition_broker.broker.encryption_keys import rotation
from ignition_broker.broker.encryption_keys.rotation import (
    PASSES,
    RotationProgress,
    record_rotation,
    rotate_grants,
)
from ignition_broker.cipher import Cipher, Misplaced
from ignition_broker.model import Actor
from ignition_broker.storage import audit
from ignition_broker.storage import rotation as statements

NEW, OLD, LOST = (Fernet.generate_key().decode() for _ in range(3))
CIPHER = Cipher([NEW, OLD])


class Grants(ScriptedDatabase):
    """The rows by tenant. ``busy``: tenants whose row a refresh always stores anew meanwhile."""

    def __init__(self, **keys: str) -> None:
        super().__init__(
            {
                statements.COUNT: lambda _given: [{"count": len(self.rows)}],
                statements.BATCH: self._batch,
                statements.REPLACE: self._replace,
            }
        )
        self.rows = {tenant: self.row(tenant, key) for tenant, key in keys.items()}
        self.done: set[str] = set()
        self.busy: set[str] = set()
        self.moved: list[Misplaced] = []

    @staticmethod
    def row(tenant: str, key: str, written_for: str | None = None) -> dict:
        cipher, written_for = Cipher([key]), written_for or tenant
        return {
            "tenant_id": tenant,
            "access_token": cipher.encrypt(written_for, "access_token", "a"),
            "refresh_token": cipher.encrypt(written_for, "refresh_token", "r"),
        }

    def _batch(self, given):
        tenants = [tenant for tenant in sorted(self.rows) if tenant > given["after"]]
        return [
            {**self.rows[tenant], "is_done": tenant in self.done}
            for tenant in tenants[: given["limit"]]
        ]

    def _replace(self, given):
        replaced = []
        for tenant, access, refresh in zip(
            given["tenants"], given["access_tokens"], given["refresh_tokens"], strict=True
        ):
            if tenant in self.busy:
                continue
            self.rows[tenant] |= {"access_token": access, "refresh_token": refresh}
            self.done.add(tenant)
            replaced.append({"tenant_id": tenant})
        return replaced

    async def record_move(self, error: Misplaced) -> None:
        self.moved.append(error)


async def rotated(grants: Grants) -> list[RotationProgress]:
    return [progress async for progress in rotate_grants(grants, CIPHER)]


async def test_every_row_ends_under_the_newest_key_and_done_ones_stay(monkeypatch):
    monkeypatch.setattr(rotation, "BATCH", 2)
    grants = Grants(a=OLD, b=NEW, c=OLD, d=OLD, e=NEW)
    before = dict(grants.rows["e"])
    grants.done = {"e"}
    steps = await rotated(grants)
    assert [(step.seen, step.total, step.rotated) for step in steps] == [
        (2, 5, 2),
        (4, 5, 4),
        (5, 5, 4),
    ]
    for tenant, row in grants.rows.items():
        assert Cipher([NEW]).decrypt(tenant, "access_token", row["access_token"]) == "a"
        assert Cipher([NEW]).decrypt(tenant, "refresh_token", row["refresh_token"]) == "r"
    assert grants.rows["e"] == before
    asked = [given for statement, given in grants.asked if statement is statements.REPLACE]
    assert [given["tenants"] for given in asked] == [["a", "b"], ["c", "d"]]


async def test_rows_that_can_not_be_read_are_counted_and_the_others_go_on():
    grants = Grants(lost=LOST, there=OLD)
    grants.rows["moved"] = grants.row("moved", OLD, written_for="there")
    (last,) = await rotated(grants)
    assert (last.rotated, last.unreadable, last.left) == (1, 2, 0)
    assert last.unreadable_tenants == ("lost", "moved")
    assert [error.tenant for error in grants.moved] == ["moved"], "which the audit trail gets"


async def test_a_row_that_a_refresh_wrote_meanwhile_is_tried_in_further_passes():
    grants = Grants(a=OLD, b=OLD)
    grants.busy = {"a"}
    steps = rotate_grants(grants, CIPHER)
    assert (await anext(steps)).left == 1
    grants.busy = set()
    last = [step async for step in steps][-1]
    assert (last.left, last.rotated) == (0, 2)


async def test_a_row_that_is_always_written_is_left_at_last():
    grants = Grants(a=OLD)
    grants.busy = {"a"}
    steps = await rotated(grants)
    assert (len(steps), steps[-1].left, steps[-1].rotated) == (PASSES, 1, 0)


async def test_without_grants_there_is_nothing_to_do():
    assert await rotated(Grants()) == []


async def recorded(last: RotationProgress | None, actor: Actor) -> dict:
    database = ScriptedDatabase()
    await record_rotation(database, CIPHER, last, actor, began_at=ManualClock().now())
    (event,) = database.parameters_of(audit.APPEND_MISSING)
    return {name: values[0] for name, values in event.items() if isinstance(values, list)}


async def test_the_audit_trail_has_the_result_and_whether_it_is_complete():
    event = await recorded(RotationProgress(5, 5, 4, 1, ("x",), 0), Actor("cli", "request-1"))
    assert (event["actions"], event["outcomes"]) == ("keys_rotate", "incomplete")
    assert (event["actors"], event["request_ids"]) == ("cli", "request-1")
    assert json.loads(event["details"]) == {
        "key_fingerprint": CIPHER.fingerprint,
        "rotated": 4,
        "unreadable": 1,
        "left": 0,
    }
    done = await recorded(RotationProgress(5, 5, 5, 0, (), 0), Actor("cli"))
    assert done["outcomes"] == "done"
    assert (await recorded(None, Actor("cli")))["outcomes"] == "done"
    left = await recorded(RotationProgress(5, 5, 4, 0, (), 1), Actor("cli"))
    assert left["outcomes"] == "incomplete"


async def test_each_run_has_an_identity_by_which_a_second_try_knows_its_event():
    first, second = await recorded(None, Actor("cli")), await recorded(None, Actor("cli"))
    assert first["request_ids"].startswith("keys-rotate-")
    assert first["request_ids"] != second["request_ids"]
