"""Re-encryption of all that is stored with the newest key, while the service runs.

It can be stopped anywhere and run again: each row says which key it is stored under, so finished
rows are skipped. A refresh between reading and writing a row wins. Such a row is read again in the
next pass, since a replica that is configured with another first key stores with that one.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from ignition_broker.cipher import Cipher, CipherError, Misplaced
from ignition_broker.grant_ids import tenant_of
from ignition_broker.model import Actor, AuditEvent
from ignition_broker.storage import audit, held_grants, pending_revocations, rotation, webhooks
from ignition_broker.storage.database import Database
from ignition_broker.storage.held_grants import SealedHeldGrant
from ignition_broker.storage.key_notes import SealedRow
from ignition_broker.storage.webhooks import SealedWebhook

BATCH = 500
PASSES = 5
"""How many times a row is tried that a refresh stores anew each time."""


@dataclass(frozen=True, slots=True)
class RotationProgress:
    """How far a rotation is.

    Attributes:
        seen: rows of this pass that were looked at, of ``total``.
        rotated: rows that were re-encrypted, in all passes.
        unreadable: rows of this pass that no configured key decrypts, or whose ciphertext belongs
            to another row; ``unreadable_tenants`` are the first of them.
        left: rows of this pass that were stored by somebody else between reading and writing.
    """

    seen: int
    total: int
    rotated: int
    unreadable: int
    unreadable_tenants: tuple[str, ...]
    left: int


async def rotate_grants(database: Database, cipher: Cipher) -> AsyncIterator[RotationProgress]:
    """Re-encrypts every grant with the first key; yields after each batch.

    Raises the errors of `storage.errors`; batches that were yielded are committed.
    """
    rotated = 0
    for _pass in range(PASSES):
        progress = None
        async for progress in _one_pass(database, cipher, rotated):
            yield progress
        if progress is None or not progress.left:
            return
        rotated = progress.rotated


async def rotate_revocations(database: Database, cipher: Cipher) -> None:
    """Re-encrypts the tokens that are still to be revoked with the first key.

    They are few, and gone after a day. One that no configured key decrypts is passed over: whoever
    tries to revoke it gives it up and says so. Raises the errors of `storage.errors`.
    """
    after = 0
    while rows := await database.once(
        partial(pending_revocations.sealed, after=after, limit=BATCH)
    ):
        for row in rows:
            try:
                fresh = cipher.renewed(row.tenant, pending_revocations.COLUMN, row.token)
            except CipherError:
                continue
            if fresh != row.token:
                await database.once(partial(pending_revocations.replace, before=row, fresh=fresh))
        after = rows[-1].id


async def rotate_webhooks(database: Database, cipher: Cipher) -> None:
    """Re-encrypts the URLs and secrets of webhooks with the first key.

    They are few. One that no configured key decrypts is passed over: its deliveries say so. Raises
    the errors of `storage.errors`.
    """
    after = ""
    while rows := await database.once(partial(webhooks.sealed, after=after, limit=BATCH)):
        for row in rows:
            try:
                fresh = SealedWebhook(
                    row.id,
                    cipher.renewed(row.id, webhooks.TARGET, row.target),
                    _renewed_secret(cipher, row.id, row.secret),
                    _renewed_secret(cipher, row.id, row.previous_secret),
                )
            except CipherError:
                continue
            if fresh != row:
                await database.once(partial(webhooks.replace_sealed, before=row, fresh=fresh))
        after = rows[-1].id


async def rotate_held_grants(database: Database, cipher: Cipher) -> None:
    """Re-encrypts the grants that are held until an admin confirms their account.

    They are few, and gone after a week. One that no configured key decrypts is passed over. Raises
    the errors of `storage.errors`.
    """
    after = ""
    while rows := await database.once(partial(held_grants.sealed, after=after, limit=BATCH)):
        for row in rows:
            try:
                fresh = SealedHeldGrant(
                    row.tenant,
                    cipher.renewed(row.tenant, "access_token", row.access_token),
                    cipher.renewed(row.tenant, "refresh_token", row.refresh_token),
                )
            except CipherError:
                continue
            if fresh != row:
                await database.once(
                    partial(
                        held_grants.replace,
                        before=row,
                        fresh=fresh,
                        key_fingerprint=cipher.fingerprint,
                    )
                )
        after = rows[-1].tenant


async def record_rotation(
    database: Database,
    cipher: Cipher,
    last: RotationProgress | None,
    actor: Actor,
    *,
    began_at: datetime,
) -> None:
    """Records the result of a rotation in the audit trail.

    The event is recorded once, even if the answer to a first try is lost: its request id, made up
    where ``actor`` has none, identifies it.

    Args:
        last: what `rotate_grants` yielded last; None: nothing.
        began_at: a time before this call; older events are not compared.
    """
    detail: dict[str, object] = {
        "key_fingerprint": cipher.fingerprint,
        "rotated": last.rotated if last else 0,
        "unreadable": last.unreadable if last else 0,
        "left": last.left if last else 0,
    }
    outcome = "incomplete" if last and (last.unreadable or last.left) else "done"
    request_id = actor.request_id or f"keys-rotate-{secrets.token_hex(8)}"
    event = AuditEvent("keys_rotate", outcome, actor.name, None, request_id, detail)
    await database.once(lambda c: audit.append_missing(c, [event], since=began_at))


async def _one_pass(
    database: Database, cipher: Cipher, rotated: int
) -> AsyncIterator[RotationProgress]:
    newest = cipher.fingerprint
    total = await database.once(rotation.count)
    seen = left = 0
    after = ""
    unreadable: list[str] = []
    while True:
        batch = await database.once(
            partial(rotation.batch, newest=newest, after=after, limit=BATCH)
        )
        if batch is None:
            return
        pairs: list[tuple[SealedRow, SealedRow]] = []
        for row in batch.waiting:
            try:
                pairs.append((row, _renewed(cipher, row)))
            except CipherError as error:
                unreadable.append(tenant_of(row.tenant))
                if isinstance(error, Misplaced):
                    await database.record_move(error)
        if pairs:
            replaced = await database.once(partial(rotation.replace, pairs=pairs, newest=newest))
            rotated += replaced
            left += len(pairs) - replaced
        seen += batch.seen
        after = batch.last
        yield RotationProgress(
            seen, max(total, seen), rotated, len(unreadable), tuple(unreadable[:5]), left
        )


def _renewed_secret(cipher: Cipher, webhook: str, secret: bytes | None) -> bytes | None:
    return None if secret is None else cipher.renewed(webhook, webhooks.SECRET, secret)


def _renewed(cipher: Cipher, row: SealedRow) -> SealedRow:
    """The row as it is to be stored. Tokens that are under the newest key already stay the same;
    storing them notes that key."""
    return SealedRow(
        row.tenant,
        access_token=cipher.renewed(row.tenant, "access_token", row.access_token),
        refresh_token=cipher.renewed(row.tenant, "refresh_token", row.refresh_token),
    )
