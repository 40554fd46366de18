"""How many grants are stored under each encryption key, and whether a needed key is missing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from ignition_broker.cipher import Cipher
from ignition_broker.grant_ids import tenant_of
from ignition_broker.storage import key_notes
from ignition_broker.storage.database import Database
from ignition_broker.storage.key_notes import SealedRow

BATCH = 500
TRIED_AT_START = 1_000
TRIED_BY_STATUS = 10_000
NAMED_TENANTS = 100


@dataclass(frozen=True, slots=True)
class EncryptionKeyUse:
    """How many ``grants`` are stored under one encryption key.

    Attributes:
        fingerprint: None for grants that no configured key decrypts and whose key was not noted.
        place: among the configured keys, 1 for the one that encrypts; None: it is not configured.
        tenants: of a key that is not configured, at most `NAMED_TENANTS` whose grants need it.
    """

    fingerprint: str | None
    place: int | None
    grants: int
    tenants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyInventory:
    """The encryption keys in use. ``untried``: how many grants do not say which key they need and
    were too many to try; a rotation or a refresh notes it."""

    keys: list[EncryptionKeyUse] = field(default_factory=list)
    untried: int = 0


async def take_inventory(database: Database, cipher: Cipher) -> KeyInventory:
    """Counts the grants of each key: by an index where the row notes its key; else by decrypting,
    of at most `TRIED_BY_STATUS` grants. Raises the errors of `storage.errors`."""
    tried = await _try_unnoted(database, cipher, TRIED_BY_STATUS)
    configured = list(cipher.fingerprints)
    noted = await database.once(key_notes.distinct)
    keys = []
    for fingerprint in [*configured, *(each for each in noted if each not in configured)]:
        count = await _count(database, fingerprint)
        is_configured = fingerprint in configured
        place = configured.index(fingerprint) + 1 if is_configured else None
        tenants = () if is_configured else await _tenants(database, fingerprint)
        count += tried.by_fingerprint[fingerprint]
        keys.append(EncryptionKeyUse(fingerprint, place, count, tenants))
    if tried.undecryptable:
        keys.append(_unknown_key(tried.undecryptable))
    untried = 0
    if not tried.were_all:
        untried = max(0, await database.once(key_notes.count_unnoted) - tried.number)
    return KeyInventory(keys, untried)


async def missing_keys(database: Database, cipher: Cipher) -> list[EncryptionKeyUse]:
    """The keys that grants need and that are not configured.

    Asked before every start, so it must not take longer with a million grants: one index step a
    key, and of the grants that do not note their key at most `TRIED_AT_START` are decrypted. Raises
    the errors of `storage.errors`.
    """
    missing = []
    for fingerprint in await database.once(key_notes.distinct):
        if fingerprint not in cipher.fingerprints:
            tenants = await _tenants(database, fingerprint)
            count = await _count(database, fingerprint)
            missing.append(EncryptionKeyUse(fingerprint, None, count, tenants))
    tried = await _try_unnoted(database, cipher, TRIED_AT_START)
    if tried.undecryptable:
        missing.append(_unknown_key(tried.undecryptable))
    return missing


class EncryptionKeyCheck:
    """Whether every stored grant can be decrypted with the configured keys.

    Asks the database until it once was so; grants stored later need no further key.
    """

    def __init__(self, database: Database, cipher: Cipher) -> None:
        self._database = database
        self._cipher = cipher
        self._has_passed = False

    async def passes(self) -> bool:
        """False while a key is missing. Raises the errors of `storage.errors`."""
        if not self._has_passed:
            self._has_passed = not await missing_keys(self._database, self._cipher)
        return self._has_passed


@dataclass(slots=True)
class _Tried:
    """Grants that do not note their key, decrypted one by one. ``undecryptable``: the tenants of
    those that no configured key decrypts."""

    by_fingerprint: Counter[str] = field(default_factory=Counter)
    undecryptable: list[str] = field(default_factory=list)
    number: int = 0
    were_all: bool = False


async def _try_unnoted(database: Database, cipher: Cipher, most: int) -> _Tried:
    tried, after = _Tried(), ""
    while tried.number < most:
        rows = await database.once(partial(key_notes.unnoted, after=after, limit=BATCH))
        if not rows:
            tried.were_all = True
            break
        for row in rows:
            fingerprint = _fingerprint_of_both(cipher, row)
            if fingerprint is None:
                tried.undecryptable.append(tenant_of(row.tenant))
            else:
                tried.by_fingerprint[fingerprint] += 1
        tried.number += len(rows)
        after = rows[-1].tenant
    return tried


def _fingerprint_of_both(cipher: Cipher, row: SealedRow) -> str | None:
    """Of the key that decrypts both tokens; None where one of them can't be decrypted."""
    access = cipher.fingerprint_that_opens(row.access_token)
    refresh = cipher.fingerprint_that_opens(row.refresh_token)
    # Both are always stored together, so under the same key.
    return None if access is None else refresh


def _unknown_key(tenants: list[str]) -> EncryptionKeyUse:
    return EncryptionKeyUse(None, None, len(tenants), tuple(tenants[:NAMED_TENANTS]))


async def _count(database: Database, fingerprint: str) -> int:
    return await database.once(partial(key_notes.count_noted, fingerprint=fingerprint))


async def _tenants(database: Database, fingerprint: str) -> tuple[str, ...]:
    named = partial(key_notes.tenants, fingerprint=fingerprint, limit=NAMED_TENANTS)
    return tuple(tenant_of(grant) for grant in await database.once(named))
