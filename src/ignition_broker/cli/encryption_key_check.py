"""Before `serve` starts: whether the configured encryption keys decrypt every stored grant."""

from __future__ import annotations

import asyncio
import contextlib

from ignition_broker.broker.encryption_keys.inventory import EncryptionKeyUse, missing_keys
from ignition_broker.cipher import Cipher
from ignition_broker.settings import RotationSettings, SettingsError, fernet_keys
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import SessionsNotKept, StorageError
from ignition_broker.storage.schema import newest_version


def check_encryption_keys(settings: RotationSettings) -> None:
    """Returns where no key is missing, and where that can't be known yet: Postgres is away or not
    migrated. `/readyz` checks again then.

    Raises:
        SettingsError: keys are missing, a line each.
        SessionsNotKept: a pooler between here and Postgres mixes sessions up.
    """
    cipher = Cipher(fernet_keys(settings.broker_encryption_keys))
    missing = asyncio.run(_missing(settings.database_url.get_secret_value(), cipher))
    if missing:
        raise SettingsError([_line(key, cipher) for key in missing])


async def _missing(url: str, cipher: Cipher) -> list[EncryptionKeyUse]:
    async with contextlib.aclosing(Database(url, pool_size=1)) as database:
        try:
            if (await database.schema_version() or "") < newest_version():
                return []
            return await missing_keys(database, cipher)
        except SessionsNotKept:
            raise
        except StorageError:
            return []


def _line(missing: EncryptionKeyUse, cipher: Cipher) -> str:
    key = (
        f"the key with fingerprint {missing.fingerprint}"
        if missing.fingerprint
        else "a key whose fingerprint was not noted"
    )
    grants = "1 grant is" if missing.grants == 1 else f"{missing.grants} grants are"
    return (
        f"BROKER_ENCRYPTION_KEYS: lacks {key}, under which {grants} stored "
        f"(tenant {missing.tenants[0]}); it has {', '.join(cipher.fingerprints)}; "
        "example: BROKER_ENCRYPTION_KEYS=newest-key,older-key"
    )
