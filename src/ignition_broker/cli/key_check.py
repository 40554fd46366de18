"""Before `serve` begins: whether every stored grant can be read with the keys it has."""

from __future__ import annotations

import asyncio

from ignition_broker.broker.encryption_keys.inventory import Holding, missing_keys
from ignition_broker.cipher import Cipher
from ignition_broker.settings import RotationSettings, SettingsError, fernet_keys
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import SessionsNotKept, StorageError
from ignition_broker.storage.schema import newest_version


def check_keys(settings: RotationSettings) -> None:
    """Raises `SettingsError`, one line for each key that is missing; `SessionsNotKept` where a
    pooler mixes sessions up.

    Where Postgres is away, or yet to be migrated, nobody can tell; then `/readyz` looks again.
    """
    cipher = Cipher(fernet_keys(settings.broker_encryption_keys))
    missing = asyncio.run(_missing(settings.database_url.get_secret_value(), cipher))
    if missing:
        raise SettingsError([_line(held, cipher) for held in missing])


async def _missing(url: str, cipher: Cipher) -> list[Holding]:
    database = Database(url, pool_size=1)
    try:
        if (await database.schema_version() or "") < newest_version():
            return []
        return await missing_keys(database, cipher)
    except SessionsNotKept:
        raise
    except StorageError:
        return []
    finally:
        await database.aclose()


def _line(held: Holding, cipher: Cipher) -> str:
    key = (
        f"the key with fingerprint {held.fingerprint}"
        if held.fingerprint
        else "a key whose fingerprint was not noted"
    )
    grants = "1 grant is" if held.grants == 1 else f"{held.grants} grants are"
    return (
        f"BROKER_ENCRYPTION_KEYS: lacks {key}, under which {grants} stored "
        f"(tenant {held.tenants[0]}); it has {', '.join(cipher.fingerprints)}; "
        "example: BROKER_ENCRYPTION_KEYS=newest-key,older-key"
    )
