"""What happens on every request, for the audit trail: counted in memory, written once a second.

A call costs one look-up and one increment. What was counted of one key, tenant and action within
a window becomes one event. A window that fills up is written at once; while there is no room, a
call that would make another event waits, and denied calls have room of their own. Nothing is lost
silently: what can't be held or stored is counted and logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import structlog

from ignition_broker.broker.audit.event_buffer import EventBuffer, Noted, Window
from ignition_broker.broker.errors import (
    Denied,
    TooManyAttempts,
    Unauthenticated,
    Unavailable,
)
from ignition_broker.clock import Clock
from ignition_broker.model import is_tenant_id
from ignition_broker.storage import audit
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError, StorageFault

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 1.0
STORED_AT_ONCE = 200
"""Making as many rows holds everybody up for some 2 ms."""
REFUSALS_BORNE = 60
"""Flushes that Postgres answers with an error before it is taken to mean these very events: a table
that a migration has yet to make, or a server that may only be read, are mended meanwhile."""
SHUTDOWN_SECONDS = 5.0
UNKNOWN = "unknown"


@dataclass(slots=True)
class _Group:
    """Calls that wait for one statement together; ``is_stored`` ends with whether it was."""

    is_stored: asyncio.Future[bool]
    window: Window = field(default_factory=dict)


class Journal:
    """``is_strict``: whoever is given a token waits until that is stored. ``on_lost(number)`` is
    told at once of calls that will not be in the trail, the log once a flush."""

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
        self._refusals = 0
        self._group: _Group | None = None
        self._storing: asyncio.Task[None] | None = None

    def note(self, actor: str, tenant: str, action: str, request_id: str) -> Awaitable[None] | None:
        """A token was given out. What is returned is to be awaited before the answer goes out;
        with ``is_strict`` it raises `Unavailable`."""
        key = (actor, tenant, action)
        if self._is_strict:
            return self._stored(key, request_id)
        return self._buffer.hold(key, request_id)

    def note_denied(self, error: Exception, route: str, request_id: str) -> None:
        """If ``error`` is what its name says; other errors are no concern of the audit trail."""
        if isinstance(error, TooManyAttempts):
            outcome, actor = "too_many_attempts", None
        elif isinstance(error, Denied):
            outcome = "unauthenticated" if isinstance(error, Unauthenticated) else "forbidden"
            actor = error.key
        else:
            return
        self.note_refusal(
            "call_denied",
            outcome,
            route=route,
            request_id=request_id,
            actor=actor,
            tenant=error.tenant,
        )

    def note_refusal(
        self,
        action: str,
        outcome: str,
        *,
        route: str,
        request_id: str,
        actor: str | None = None,
        tenant: str | None = None,
    ) -> None:
        """One event a route, outcome and known key, whatever the caller makes up."""
        actor = actor or UNKNOWN
        if tenant is not None and not is_tenant_id(tenant):
            tenant = None
        denial = Noted(actor, tenant, action, outcome, request_id, self._clock.now(), route)
        self._buffer.hold_denial((actor, action, outcome, route), denial)

    async def run(self) -> None:
        """Until it is cancelled; `close` has the last word."""
        is_stored = True
        while True:
            if is_stored:
                await self._due()
            else:
                await self._clock.sleep(FLUSH_SECONDS)
            is_stored = False
            try:
                is_stored = await self.flush()
            except Exception:
                # The trail depends on this loop: it must outlive what nobody thought of.
                log.exception("audit_flush_failed")

    async def _due(self) -> None:
        """A second later, or as soon as many events are in the making."""
        waits = (self._clock.sleep(FLUSH_SECONDS), self._buffer.is_filling.wait())
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def flush(self) -> bool:
        """Stores what was counted, denied calls first; whether it could."""
        try:
            if not await self._store_taken():
                return False
            self._buffer.take()
            self._taken_at, self._was_tried = self._clock.now(), False
            return await self._store_taken()
        finally:
            self._buffer.tell_losses()

    async def _store_taken(self) -> bool:
        while self._buffer.taken:
            part = dict(islice(self._buffer.taken.items(), STORED_AT_ONCE))
            events = [noted.event(self._taken_at) for noted in part.values()]
            since = min(noted.since for noted in part.values())
            append = audit.append_many
            if self._was_tried:
                append = partial(audit.append_missing, since=since)
            self._was_tried = True
            try:
                await self._database.single(partial(append, events=events))
            except StorageError as error:
                log.warning("audit_flush_failed", reason=str(error), events=len(self._buffer.taken))
                self._refusals += isinstance(error, StorageFault)
                if self._refusals < REFUSALS_BORNE:
                    return False
                # They would be refused for ever, and all that come behind them not be tried.
                self._buffer.lose(part)
            self._refusals = 0
            self._was_tried = False
            self._buffer.done_with(part)
        return True

    async def close(self) -> None:
        """Stores the rest, if it can be done within `SHUTDOWN_SECONDS`."""
        give_up_at = self._clock.monotonic() + SHUTDOWN_SECONDS
        try:
            async with asyncio.timeout(SHUTDOWN_SECONDS):
                while not await self.flush() and self._clock.monotonic() < give_up_at:
                    await self._clock.sleep(0.2)
        except TimeoutError:
            pass
        self._buffer.lose_rest()
        self._buffer.tell_losses()

    async def _stored(self, key: tuple[str, str, str], request_id: str) -> None:
        """Whoever comes while a statement is under way shares the next."""
        group = self._group
        if group is None:
            group = self._group = _Group(asyncio.get_running_loop().create_future())
        noted = group.window.get(key)
        if noted is not None:
            noted.count += 1
        else:
            group.window[key] = Noted(*key, "done", request_id, self._clock.now())
        if self._storing is None or self._storing.done():
            self._storing = asyncio.create_task(self._store_groups())
        if not await asyncio.shield(group.is_stored):
            raise Unavailable("The audit trail can't be written just now.", tenant=key[1])

    async def _store_groups(self) -> None:
        while self._group is not None:
            group, self._group = self._group, None
            now = self._clock.now()
            events = [noted.event(now) for noted in group.window.values()]
            is_stored = False
            try:
                await self._database.once(partial(audit.append_many, events=events))
                is_stored = True
            except StorageError as error:
                log.warning("audit_store_failed", reason=str(error))
            finally:
                group.is_stored.set_result(is_stored)
