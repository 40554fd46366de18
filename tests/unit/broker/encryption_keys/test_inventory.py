"""How many grants each encryption key holds, and which keys are missing."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet
from tests.unit.scripted_database import ScriptedDatabase

from ignition_broker.broker.encryption_keys import inventory
from ignition_broker.broker.encryption_keys.inventory import (
    EncryptionKeyCheck,
    EncryptionKeyUse,
    missing_keys,
    take_inventory,
)
from ignition_broker.cipher import Cipher, fingerprint_of
from ignition_broker.storage import key_notes
from ignition_broker.storage.errors import StorageUnavailable

NEW, OLD, LOST = (Fernet.generate_key().decode() for _ in range(3))
CIPHER = Cipher([NEW, OLD])
PRINTS = {key: fingerprint_of(key) for key in (NEW, OLD, LOST)}


class Grants:
    """``noted``: tenants by the key that their row names; ``unnoted``: by the key of one that
    does not."""

    def __init__(self, noted: dict[str, list[str]], unnoted: dict[str, str] | None = None) -> None:
        self.noted = {PRINTS[key]: tenants for key, tenants in noted.items()}
        self.unnoted = {
            tenant: {
                "tenant_id": tenant,
                "access_token": Cipher([key]).encrypt(tenant, "access_token", "a"),
                "refresh_token": Cipher([key]).encrypt(tenant, "refresh_token", "r"),
            }
            for tenant, key in (unnoted or {}).items()
        }

    def database(self) -> ScriptedDatabase:
        def tenants(given):
            named = self.noted.get(given["fingerprint"], [])
            return [{"tenant_id": tenant} for tenant in named[: given["limit"]]]

        def unnoted(given):
            rows = [self.unnoted[tenant] for tenant in sorted(self.unnoted)]
            return [row for row in rows if row["tenant_id"] > given["after"]][: given["limit"]]

        return ScriptedDatabase(
            {
                key_notes.DISTINCT: [{"key_fingerprint": each} for each in self.noted],
                key_notes.COUNT_NOTED: lambda given: [
                    {"count": len(self.noted.get(given["fingerprint"], []))}
                ],
                key_notes.COUNT_UNNOTED: [{"count": len(self.unnoted)}],
                key_notes.TENANTS: tenants,
                key_notes.UNNOTED: unnoted,
            }
        )


async def test_noted_and_tried_grants_are_counted_by_key_in_the_settings_order():
    grants = Grants({OLD: ["a", "b"], NEW: ["c"]}, {"d": NEW, "e": OLD})
    found = await take_inventory(grants.database(), CIPHER)
    assert found.keys == [
        EncryptionKeyUse(PRINTS[NEW], 1, 2),
        EncryptionKeyUse(PRINTS[OLD], 2, 3),
    ]
    assert found.untried == 0


async def test_a_key_without_grants_is_shown_and_one_that_is_missing_names_tenants():
    found = await take_inventory(Grants({LOST: ["x", "y"]}).database(), CIPHER)
    assert found.keys == [
        EncryptionKeyUse(PRINTS[NEW], 1, 0),
        EncryptionKeyUse(PRINTS[OLD], 2, 0),
        EncryptionKeyUse(PRINTS[LOST], None, 2, ("x", "y")),
    ]


async def test_grants_that_no_key_decrypts_are_those_of_an_unknown_one(monkeypatch):
    monkeypatch.setattr(inventory, "NAMED_TENANTS", 1)
    grants = Grants({}, {"lost-1": LOST, "lost-2": LOST, "there": NEW})
    unknown = EncryptionKeyUse(None, None, 2, ("lost-1",))
    assert (await take_inventory(grants.database(), CIPHER)).keys[-1] == unknown
    assert await missing_keys(grants.database(), CIPHER) == [unknown]


async def test_a_grant_of_which_one_token_alone_is_decrypted_counts_as_lost():
    grants = Grants({}, {"torn": NEW})
    lost = Cipher([LOST]).encrypt("torn", "refresh_token", "r")
    grants.unnoted["torn"]["refresh_token"] = lost
    assert await missing_keys(grants.database(), CIPHER) == [
        EncryptionKeyUse(None, None, 1, ("torn",))
    ]


async def test_so_many_grants_are_tried_and_the_rest_is_counted(monkeypatch):
    monkeypatch.setattr(inventory, "TRIED_BY_STATUS", 4)
    monkeypatch.setattr(inventory, "BATCH", 2)
    grants = Grants({}, {f"t{number}": NEW for number in range(7)})
    found = await take_inventory(grants.database(), CIPHER)
    assert (found.keys[0].grants, found.untried) == (4, 3)


async def test_a_start_does_not_count_what_it_did_not_try(monkeypatch):
    monkeypatch.setattr(inventory, "TRIED_AT_START", 2)
    monkeypatch.setattr(inventory, "BATCH", 2)
    database = Grants({}, {f"t{number}": NEW for number in range(7)}).database()
    assert await missing_keys(database, CIPHER) == []
    assert [asked for asked, _given in database.asked] == [key_notes.DISTINCT, key_notes.UNNOTED]


async def test_the_check_asks_until_the_keys_were_enough_once():
    database = Grants({LOST: ["x"]}).database()
    check = EncryptionKeyCheck(database, CIPHER)
    assert not await check.passes()
    database.answers[key_notes.DISTINCT] = StorageUnavailable("away")
    with pytest.raises(StorageUnavailable):
        await check.passes()
    database.answers[key_notes.DISTINCT] = []
    assert await check.passes()
    database.answers[key_notes.DISTINCT] = StorageUnavailable("away")
    assert await check.passes(), "no key can be missing any more"
