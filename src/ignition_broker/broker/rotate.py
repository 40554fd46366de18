"""Re-encryption with the newest key, while the service runs."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ignition_broker.cipher import Cipher
from ignition_broker.storage import rotation
from ignition_broker.storage.engine import Database

BATCH = 200


async def rotate(database: Database, cipher: Cipher) -> AsyncIterator[tuple[int, int, int]]:
    """Yields (rows seen, rows changed, rows in all) after each batch.

    A row is changed only where it still holds what was read, so a refresh that comes between
    wins. Raises `CipherError` for a row that no key reads.
    """
    total = await database.once(rotation.count)
    seen = changed = 0
    after = ""
    while True:
        async with database.begin() as connection:
            rows = await rotation.batch(connection, after=after, limit=BATCH)
            for row in rows:
                fresh = {
                    column: _renewed(cipher, row.tenant, column, ciphertext)
                    for column, ciphertext in row.columns.items()
                }
                if fresh != row.columns:
                    changed += await rotation.replace(connection, row, fresh)
        if not rows:
            return
        seen += len(rows)
        after = rows[-1].tenant
        yield seen, changed, max(total, seen)


def _renewed(cipher: Cipher, tenant: str, column: str, ciphertext: bytes) -> bytes:
    if cipher.is_newest(ciphertext):
        return ciphertext
    return cipher.encrypt(tenant, column, cipher.decrypt(tenant, column, ciphertext))
