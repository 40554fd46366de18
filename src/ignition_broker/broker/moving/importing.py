"""Stores the rows of an import: all of them in one transaction, or none."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from ignition_broker.broker.moving.rows import ImportRow
from ignition_broker.cipher import Cipher, CipherError
from ignition_broker.model import Actor, AuditEvent, GrantStatus
from ignition_broker.oauth.tokens import (
    ASSUMED_LIFETIME_SECONDS,
    ENDLESS_LIFETIME_SECONDS,
    LONGEST_LIFETIME_SECONDS,
)
from ignition_broker.storage import moving, new_tokens, tenants
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.database import Database
from ignition_broker.storage.moving import HeldTokens
from ignition_broker.storage.sealed_tokens import Schedule, SealedTokens
from ignition_broker.storage.tenants import Description

BATCH: Final = 500
SECONDS_A_ROW: Final = 0.2
"""Grants without a live access token are renewed at so long a distance on average, so that an
import does not stampede Ignition."""


class Verdict(StrEnum):
    IMPORTED = "imported"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped, the tenant is connected"
    REFUSED = "the tenant is connected; give --skip-connected, or disconnect it first"


@dataclass(frozen=True, slots=True)
class Judged:
    row: ImportRow
    verdict: Verdict


class TenantsConnected(Exception):
    """Rows are of tenants that are connected already; nothing was stored."""

    def __init__(self, judged: Sequence[Judged]) -> None:
        super().__init__("tenants are connected already")
        self.judged = judged


async def import_rows(
    database: Database,
    cipher: Cipher,
    rows: Sequence[ImportRow],
    actor: Actor,
    *,
    now: datetime,
    lead_seconds: float,
    skips_connected: bool,
    is_trial: bool,
    on_progress: Callable[[int], None],
) -> list[Judged]:
    """Stores ``rows``, in the order of their grants' ids; returns what became of each.

    ``is_trial``: only says what would. ``lead_seconds``: how long before its expiry a token is
    renewed. ``on_progress``: told how many rows are done. Raises `TenantsConnected` or the errors
    of `storage.errors`; then nothing is stored.
    """
    ordered = sorted(rows, key=lambda row: row.grant)
    batches = [ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH)]
    judged: list[Judged] = []
    async with database.begin() as connection:
        # The whole file is judged before the first row is stored.
        for batch in batches:
            held = await moving.held(connection, [row.grant for row in batch])
            judged += [_judged(cipher, row, held, skips=skips_connected) for row in batch]
        refused = [each for each in judged if each.verdict is Verdict.REFUSED]
        if refused:
            raise TenantsConnected(refused)
        wanted = [each.row for each in judged if each.verdict is Verdict.IMPORTED]
        if is_trial:
            return judged
        window = len(wanted) * SECONDS_A_ROW
        for number, row in enumerate(wanted, 1):
            await tenants.ensure(connection, row.grant)
            await tenants.end_begun(connection, row.grant)
            # Whoever connected the tenant since it was judged has committed by now.
            overtaken = await moving.held(connection, [row.grant])
            meant = _judged(cipher, row, overtaken, skips=False)
            if meant.verdict is not Verdict.IMPORTED:
                raise TenantsConnected([Judged(row, Verdict.REFUSED)])
            await _store(connection, cipher, row, actor, now, lead_seconds, window)
            on_progress(number)
    return judged


def _judged(
    cipher: Cipher, row: ImportRow, held: Mapping[str, HeldTokens], *, skips: bool
) -> Judged:
    there = held.get(row.grant)
    if there is None:
        return Judged(row, Verdict.IMPORTED)
    if _is_same(cipher, row, there):
        return Judged(row, Verdict.UNCHANGED)
    if there.status is not GrantStatus.CONNECTED:
        return Judged(row, Verdict.IMPORTED)
    return Judged(row, Verdict.SKIPPED if skips else Verdict.REFUSED)


def _is_same(cipher: Cipher, row: ImportRow, held: HeldTokens) -> bool:
    column = "refresh_token" if row.is_renewable else "access_token"
    token = row.refresh_token if row.is_renewable else row.access_token
    ciphertext = held.refresh_token if row.is_renewable else held.access_token
    if ciphertext is None:
        return False
    try:
        return cipher.decrypt(row.grant, column, ciphertext) == token.reveal()
    except CipherError:
        return False


async def _store(
    connection: Connection,
    cipher: Cipher,
    row: ImportRow,
    actor: Actor,
    now: datetime,
    lead_seconds: float,
    window_seconds: float,
) -> None:
    sealed, age = _sealed(cipher, row, now)
    left = sealed.lifetime_seconds - age
    if left > 0:
        latest = max(0.0, left - min(lead_seconds, sealed.lifetime_seconds / 2))
        due = random.uniform(max(latest / 2, latest - window_seconds), latest)  # noqa: S311
    else:
        due = random.uniform(0, window_seconds)  # noqa: S311
    detail: dict[str, object] = {"scope": row.scope, "renewable": row.is_renewable}
    event = AuditEvent("tenant_import", "done", actor.name, row.grant, actor.request_id, detail)
    schedule = Schedule(due + age, 0.0)
    await new_tokens.store_connected(
        connection, row.grant, sealed, schedule, event, age_seconds=age
    )
    if row.name is not None or row.labels:
        description = Description(row.name is not None, row.name, bool(row.labels), row.labels)
        await tenants.describe(connection, row.grant, description)


def _sealed(cipher: Cipher, row: ImportRow, now: datetime) -> tuple[SealedTokens, float]:
    """The row's tokens, encrypted, and how many seconds ago they were asked for, which no file
    says: a lifetime of an hour is assumed, or the longer one that is left."""
    lifetime = 0.0
    age = 0.0
    if row.expires_at is not None:
        left = min((row.expires_at - now).total_seconds(), LONGEST_LIFETIME_SECONDS)
        if left > 0:
            lifetime = max(left, ASSUMED_LIFETIME_SECONDS)
            age = lifetime - left
    elif not row.is_renewable:
        lifetime = ENDLESS_LIFETIME_SECONDS
    # A token whose end is unknown counts as expired, so that it is renewed before it is served.
    sealed = SealedTokens(
        access_token=cipher.encrypt(row.grant, "access_token", row.access_token.reveal()),
        refresh_token=cipher.encrypt(row.grant, "refresh_token", row.refresh_token.reveal()),
        token_type="Bearer",
        scope=row.scope,
        lifetime_seconds=lifetime,
        key_fingerprint=cipher.fingerprint,
        has_refresh_token=row.is_renewable,
    )
    return sealed, age


def counted(judged: Collection[Judged]) -> dict[Verdict, int]:
    """How many rows have each verdict."""
    return {
        verdict: count
        for verdict in Verdict
        if (count := sum(each.verdict is verdict for each in judged))
    }
