"""Re-encryption with the newest key, while the service runs.

Row by row it can be stopped anywhere and run again: each row says which key holds it, so what is
done is passed over. A refresh that comes between reading and writing wins; its row is looked at
once more, since a replica whose first key is another writes with that one.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from ignition_broker.cipher import Cipher, CipherError, Misplaced
from ignition_broker.model import Actor, AuditEvent
from ignition_broker.storage import audit, rotation
from ignition_broker.storage.database import Database
from ignition_broker.storage.key_notes import SealedRow

BATCH = 500
PASSES = 5
"""A row that is written at this very moment each time is left after so many looks."""


@dataclass(frozen=True, slots=True)
class Progress:
    """``seen`` of ``total`` rows in this pass. ``rotated`` counts rows of all passes;
    ``unreadable`` those of this pass that no configured key opens or that were moved, of which
    ``named`` are some; ``left`` those of this pass that were written meanwhile."""

    seen: int
    total: int
    rotated: int
    unreadable: int
    named: tuple[str, ...]
    left: int


async def rotate(database: Database, cipher: Cipher) -> AsyncIterator[Progress]:
    """Yields after each batch. Raises the errors of `storage.errors`: what was done stays done."""
    rotated = 0
    for _pass in range(PASSES):
        progress = None
        async for progress in _one_pass(database, cipher, rotated):
            yield progress
        if progress is None or not progress.left:
            return
        rotated = progress.rotated


async def record(
    database: Database,
    cipher: Cipher,
    last: Progress | None,
    actor: Actor,
    *,
    began_at: datetime,
) -> None:
    """In the audit trail, what a run came to: to which key, by its fingerprint, and how many.

    Once, whatever breaks: the event's request id is made up, and known again by a second try.
    ``began_at``: a moment before this.
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


async def _one_pass(database: Database, cipher: Cipher, rotated: int) -> AsyncIterator[Progress]:
    newest = cipher.fingerprint
    total = await database.once(rotation.count)
    seen = left = 0
    after = ""
    unreadable: list[str] = []
    while True:
        batch = await database.once(
            lambda c, after=after: rotation.batch(c, newest=newest, after=after, limit=BATCH)  # type: ignore[misc]
        )
        if batch is None:
            return
        pairs: list[tuple[SealedRow, SealedRow]] = []
        for row in batch.waiting:
            try:
                pairs.append((row, _renewed(cipher, row)))
            except CipherError as error:
                unreadable.append(row.tenant)
                if isinstance(error, Misplaced):
                    await database.record_move(error)
        if pairs:
            replaced = await database.once(
                lambda c, pairs=pairs: rotation.replace(c, pairs, newest=newest)  # type: ignore[misc]
            )
            rotated += replaced
            left += len(pairs) - replaced
        seen += batch.seen
        after = batch.last
        yield Progress(
            seen, max(total, seen), rotated, len(unreadable), tuple(unreadable[:5]), left
        )


def _renewed(cipher: Cipher, row: SealedRow) -> SealedRow:
    """As it is to be stored; what the newest key wrote already stays, and is only noted."""
    return SealedRow(
        row.tenant,
        access_token=cipher.renewed(row.tenant, "access_token", row.access_token),
        refresh_token=cipher.renewed(row.tenant, "refresh_token", row.refresh_token),
    )
