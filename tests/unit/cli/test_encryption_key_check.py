"""Whether `serve` starts, by the encryption keys that it has."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from ignition_broker.broker.encryption_keys.inventory import EncryptionKeyUse
from ignition_broker.cipher import fingerprint_of
from ignition_broker.cli import encryption_key_check
from ignition_broker.cli.encryption_key_check import check_encryption_keys
from ignition_broker.settings import SettingsError
from ignition_broker.storage.errors import SessionsNotKept, StorageUnavailable
from ignition_broker.storage.schema import newest_version

KEY = Fernet.generate_key().decode()
SETTINGS = SimpleNamespace(
    database_url=SecretStr("postgresql://broker@127.0.0.1/broker"),
    broker_encryption_keys=SecretStr(KEY),
)
LOST = EncryptionKeyUse("8b40e6d15f3c", None, 188, ("acme", "beta"))
UNKNOWN = EncryptionKeyUse(None, None, 1, ("acme",))


@pytest.fixture
def postgres(monkeypatch):
    found = SimpleNamespace(version=newest_version(), missing=[], closed=0)

    class Opened:
        def __init__(self, _url, *, pool_size) -> None:
            assert pool_size == 1

        async def schema_version(self):
            if isinstance(found.version, Exception):
                raise found.version
            return found.version

        async def aclose(self) -> None:
            found.closed += 1

    async def missing_keys(_database, _cipher):
        return found.missing

    monkeypatch.setattr(encryption_key_check, "Database", Opened)
    monkeypatch.setattr(encryption_key_check, "missing_keys", missing_keys)
    return found


def test_with_all_keys_it_starts(postgres):
    check_encryption_keys(SETTINGS)
    assert postgres.closed == 1


def test_each_missing_key_is_a_line_that_says_what_it_holds(postgres):
    postgres.missing = [LOST, UNKNOWN]
    with pytest.raises(SettingsError) as refused:
        check_encryption_keys(SETTINGS)
    first, second = refused.value.lines
    has = f"it has {fingerprint_of(KEY)}"
    assert first.startswith(
        "BROKER_ENCRYPTION_KEYS: lacks the key with fingerprint 8b40e6d15f3c, under which 188 "
        f"grants are stored (tenant acme); {has}; example: "
    )
    assert "a key whose fingerprint was not noted, under which 1 grant is stored" in second
    assert KEY not in "".join(refused.value.lines)
    assert postgres.closed == 1


@pytest.mark.parametrize("version", [None, "0001", StorageUnavailable("away")])
def test_where_nobody_can_tell_yet_it_starts(postgres, version):
    postgres.version, postgres.missing = version, [LOST]
    check_encryption_keys(SETTINGS)
    assert postgres.closed == 1


def test_a_pooler_that_mixes_sessions_up_is_told(postgres):
    postgres.version = SessionsNotKept("a pooler")
    with pytest.raises(SessionsNotKept):
        check_encryption_keys(SETTINGS)
    assert postgres.closed == 1
