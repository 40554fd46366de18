"""What each encryption key still holds, and whether one is missing that a stored row needs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ignition_broker.cipher import Cipher
from ignition_broker.storage import key_notes
from ignition_broker.storage.database import Database
from ignition_broker.storage.key_notes import SealedRow

BATCH = 500
TRIED_AT_START = 1_000
TRIED_BY_STATUS = 10_000
NAMED_TENANTS = 100


@dataclass(frozen=True, slots=True)
class Holding:
    """``fingerprint`` is None for rows that no configured key opens and that bear no note.

    ``place``: 1 for the configured key that encrypts, None for one that is not configured.
    ``tenants``: some of those whose tokens can't be read.
    """

    fingerprint: str | None
    place: int | None
    grants: int
    tenants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Holdings:
    """``untried``: grants of whose key nobody knows until a rotation or a refresh notes it."""

    keys: list[Holding] = field(default_factory=list)
    untried: int = 0

    @property
    def missing(self) -> list[Holding]:
        return [held for held in self.keys if held.place is None and held.grants]


async def holdings(database: Database, cipher: Cipher) -> Holdings:
    """By index what is noted; what is not, by trying at most `TRIED_BY_STATUS` rows."""
    tried, foreign, untried = await _tried(database, cipher, TRIED_BY_STATUS)
    configured = list(cipher.fingerprints)
    noted = await database.once(key_notes.distinct)
    keys = []
    for fingerprint in [*configured, *(each for each in noted if each not in configured)]:
        count = await _count(database, fingerprint)
        is_configured = fingerprint in configured
        place = configured.index(fingerprint) + 1 if is_configured else None
        named = () if is_configured else await _tenants(database, fingerprint)
        keys.append(Holding(fingerprint, place, count + tried[fingerprint], named))
    if foreign:
        keys.append(Holding(None, None, len(foreign), tuple(foreign[:NAMED_TENANTS])))
    return Holdings(keys, untried)


async def missing_keys(database: Database, cipher: Cipher) -> list[Holding]:
    """For a start: one index step a key, and at most `TRIED_AT_START` unnoted rows tried, so that
    it takes no longer with a million grants."""
    missing = []
    for fingerprint in await database.once(key_notes.distinct):
        if fingerprint not in cipher.fingerprints:
            named = await _tenants(database, fingerprint)
            missing.append(Holding(fingerprint, None, await _count(database, fingerprint), named))
    _counts, foreign, _untried = await _tried(database, cipher, TRIED_AT_START, counts_rest=False)
    if foreign:
        missing.append(Holding(None, None, len(foreign), tuple(foreign[:NAMED_TENANTS])))
    return missing


class KeyCheck:
    """Whether the keys were ever seen to be enough; once they were, this process writes with
    them."""

    def __init__(self, database: Database, cipher: Cipher) -> None:
        self._database = database
        self._cipher = cipher
        self._were_enough = False

    async def are_enough(self) -> bool:
        """Raises the errors of `storage.errors`."""
        if not self._were_enough:
            self._were_enough = not await missing_keys(self._database, self._cipher)
        return self._were_enough


async def _tried(
    database: Database, cipher: Cipher, most: int, *, counts_rest: bool = True
) -> tuple[Counter[str], list[str], int]:
    """Grants by the key that opens them, tenants that none opens, and how many were not tried."""
    by_key: Counter[str] = Counter()
    foreign: list[str] = []
    seen, after = 0, ""
    while seen < most:
        rows = await database.once(
            lambda c, after=after: key_notes.unnoted(c, after=after, limit=BATCH)  # type: ignore[misc]
        )
        if not rows:
            return by_key, foreign, 0
        for row in rows:
            fingerprint = _key_of(cipher, row)
            if fingerprint is None:
                foreign.append(row.tenant)
            else:
                by_key[fingerprint] += 1
        seen += len(rows)
        after = rows[-1].tenant
    rest = await database.once(key_notes.count_unnoted) - seen if counts_rest else 0
    return by_key, foreign, max(0, rest)


def _key_of(cipher: Cipher, row: SealedRow) -> str | None:
    """Of the key that opens both tokens; an older release's rotation never left them under two."""
    opened = [cipher.fingerprint_that_opens(each) for each in (row.access_token, row.refresh_token)]
    return None if None in opened else opened[1]


async def _count(database: Database, fingerprint: str) -> int:
    return await database.once(lambda c: key_notes.count_noted(c, fingerprint))


async def _tenants(database: Database, fingerprint: str) -> tuple[str, ...]:
    return tuple(
        await database.once(lambda c: key_notes.tenants(c, fingerprint, limit=NAMED_TENANTS))
    )
