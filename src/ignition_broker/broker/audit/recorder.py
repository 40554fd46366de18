"""Records every call in the audit trail: counted in memory, stored once a second.

A call costs one look-up and one increment. The calls of one actor, tenant and action within a
window become one event. A window that fills up is stored at once (`event_buffer` has the limits).
Nothing is lost silently: what can't be buffered or stored is counted and logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import structlog

from ignition_broker.broker.audit.event_buffer import EventBuffer, PendingEvent, Window
from ignition_broker.broker.errors import (
    Denied,
    TooManyAttempts,
    Unauthenticated,
    Unavailable,
)
from ignition_broker.clock import Clock
from ignition_broker.model import is_grant_id
from ignition_broker.storage import audit
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError, StorageFault

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 1.0
EVENTS_A_STATEMENT = 200
"""Preparing that many blocks the event loop for some 2 ms."""
REJECTED_FLUSHES_BORNE = 60
"""So many flushes in a row may be rejected by Postgres before the fault is taken to be in the
events themselves. Until then somebody may run the migration, or end a read-only mode."""
SHUTDOWN_SECONDS = 5.0
UNKNOWN = "unknown"


@dataclass(slots=True)
class _Batch:
    """Calls that are stored by one statement; ``is_stored`` says whether they were."""

    is_stored: asyncio.Future[bool]
    window: Window = field(default_factory=dict)


class AuditRecorder:
    """Records calls; `run` stores them.

    Args:
        is_strict: a call is answered only after its event is stored.
        on_lost: called at once with the number of calls that will be missing in the audit trail;
            the log tells it once a flush.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        is_strict: bool,
        on_lost: Callable[[int], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._is_strict = is_strict
        self._buffer = EventBuffer(clock, on_lost)
        self._taken_at = clock.now()
        self._was_tried = False
        self._rejections = 0
        self._batch: _Batch | None = None
        self._storing: asyncio.Task[None] | None = None

    def record_call(
        self, actor: str, tenant: str, action: str, request_id: str
    ) -> Awaitable[None] | None:
        """Records that a token was given out or used.

        Returns:
            What to await before the call is answered, if anything; with ``is_strict`` it raises
            `Unavailable` where the event can't be stored.
        """
        key = (actor, tenant, action)
        if self._is_strict:
            return self._stored(key, request_id)
        return self._buffer.add_call(key, request_id)

    def record_denied_call(self, error: Exception, route: str, request_id: str) -> None:
        """Records the call that ended with ``error``, if that is a denial; does nothing if not.

        Args:
            route: its template, without what the caller filled in.
        """
        if isinstance(error, TooManyAttempts):
            outcome, actor = "too_many_attempts", None
        elif isinstance(error, Denied):
            outcome = "unauthenticated" if isinstance(error, Unauthenticated) else "forbidden"
            actor = error.key
        else:
            return
        self.record_denial(
            "call_denied",
            outcome,
            route=route,
            request_id=request_id,
            actor=actor,
            tenant=error.tenant,
        )

    def record_denial(
        self,
        action: str,
        outcome: str,
        *,
        route: str,
        request_id: str,
        actor: str | None = None,
        tenant: str | None = None,
    ) -> None:
        """Records something that was denied, in one event for each actor, action, outcome and
        ``route``: a caller can't make up more of them.

        Args:
            actor: None where it is not known.
            tenant: a grant's id, or as the caller wrote it; left out where it is neither that nor a
                tenant id.
        """
        actor = actor or UNKNOWN
        if tenant is not None and not is_grant_id(tenant):
            tenant = None
        denial = PendingEvent(actor, tenant, action, outcome, request_id, self._clock.now(), route)
        self._buffer.add_denial((actor, action, outcome, route), denial)

    async def run(self) -> None:
        """Stores events until it is cancelled; then `close` stores the rest."""
        is_stored = True
        while True:
            if is_stored:
                await self._flush_due()
            else:
                await self._clock.sleep(FLUSH_SECONDS)
            is_stored = False
            try:
                is_stored = await self.flush()
            except Exception:
                # The audit trail depends on this loop, so no error may end it.
                log.exception("audit_flush_failed")

    async def _flush_due(self) -> None:
        """Returns after a second, or as soon as many events are pending."""
        waits = (self._clock.sleep(FLUSH_SECONDS), self._buffer.is_flush_due.wait())
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def flush(self) -> bool:
        """Stores what is pending, denied calls first. Returns whether all of it was stored."""
        try:
            if not await self._store_taken():
                return False
            self._buffer.take()
            self._taken_at, self._was_tried = self._clock.now(), False
            return await self._store_taken()
        finally:
            self._buffer.log_losses()

    async def _store_taken(self) -> bool:
        while self._buffer.taken:
            part = dict(islice(self._buffer.taken.items(), EVENTS_A_STATEMENT))
            events = [pending.event(self._taken_at) for pending in part.values()]
            since = min(pending.since for pending in part.values())
            append = audit.append_many
            if self._was_tried:
                append = partial(audit.append_missing, since=since)
            self._was_tried = True
            try:
                await self._database.single(partial(append, events=events))
            except StorageError as error:
                log.warning("audit_flush_failed", reason=str(error), events=len(self._buffer.taken))
                self._rejections += isinstance(error, StorageFault)
                if self._rejections < REJECTED_FLUSHES_BORNE:
                    return False
                # They would be rejected for ever, and later events never be tried.
                self._buffer.lose(part)
            self._rejections = 0
            self._was_tried = False
            self._buffer.drop_taken(part)
        return True

    async def close(self) -> None:
        """Stores the rest within `SHUTDOWN_SECONDS`; what could not be stored then is lost."""
        give_up_at = self._clock.monotonic() + SHUTDOWN_SECONDS
        try:
            async with asyncio.timeout(SHUTDOWN_SECONDS):
                while not await self.flush() and self._clock.monotonic() < give_up_at:
                    await self._clock.sleep(0.2)
        except TimeoutError:
            pass
        self._buffer.lose_all()
        self._buffer.log_losses()

    async def _stored(self, key: tuple[str, str, str], request_id: str) -> None:
        """Returns when the call is stored. Calls that come while a statement is under way share
        the next one."""
        batch = self._batch
        if batch is None:
            batch = self._batch = _Batch(asyncio.get_running_loop().create_future())
        pending = batch.window.get(key)
        if pending is not None:
            pending.count += 1
        else:
            batch.window[key] = PendingEvent(*key, "done", request_id, self._clock.now())
        if self._storing is None or self._storing.done():
            self._storing = asyncio.create_task(self._store_batches())
        if not await asyncio.shield(batch.is_stored):
            raise Unavailable("The audit trail can't be written just now.", tenant=key[1])

    async def _store_batches(self) -> None:
        while self._batch is not None:
            batch, self._batch = self._batch, None
            now = self._clock.now()
            events = [pending.event(now) for pending in batch.window.values()]
            is_stored = False
            try:
                await self._database.once(partial(audit.append_many, events=events))
                is_stored = True
            except StorageError as error:
                log.warning("audit_store_failed", reason=str(error))
            finally:
                batch.is_stored.set_result(is_stored)
