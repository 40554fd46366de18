"""What happens on every request, for the audit trail: counted in memory, written once a second.

A call costs one look-up and one increment. What was counted of one key, tenant and action within
a window becomes one event. Nothing is lost silently: what can't be held or stored is counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import islice

import structlog

from ignition_broker.broker.errors import (
    Denied,
    TooManyAttempts,
    Unauthenticated,
    Unavailable,
)
from ignition_broker.clock import Clock
from ignition_broker.model import AuditEvent, is_tenant_id
from ignition_broker.storage import audit
from ignition_broker.storage.engine import Database
from ignition_broker.storage.errors import StorageError, StorageFault

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 1.0
LARGEST_NUMBER_HELD = 10_000
"""Of events in the making; calls that would make another are lost."""
STORED_AT_ONCE = 200
"""Making as many rows holds everybody up for some 2 ms."""
REFUSALS_BORNE = 60
"""Flushes that Postgres answers with an error before it is taken to mean these very events: a table
that a migration has yet to make, or a server that may only be read, are mended meanwhile."""
SHUTDOWN_SECONDS = 5.0
UNKNOWN = "unknown"


@dataclass(slots=True)
class Noted:
    """An event in the making. ``request_id`` and ``since`` are the first call's; ``tenant`` of
    denied calls is None where they did not all name one and the same."""

    actor: str
    tenant: str | None
    action: str
    outcome: str
    request_id: str
    since: datetime
    route: str | None = None
    count: int = 1

    def event(self, until: datetime) -> AuditEvent:
        detail: dict[str, object] = {
            "count": self.count,
            "from": self.since.isoformat(),
            "to": until.isoformat(),
        }
        if self.route is not None:
            detail["route"] = self.route
        return AuditEvent(
            self.action, self.outcome, self.actor, self.tenant, self.request_id, detail
        )


Window = dict[tuple[str, ...], Noted]


@dataclass(slots=True)
class _Group:
    """Calls that wait for one statement together; ``is_stored`` ends with whether it was."""

    is_stored: asyncio.Future[bool]
    window: Window = field(default_factory=dict)


class Journal:
    """``is_strict``: whoever is given a token waits until that is stored. ``on_lost(number)`` is
    told of calls that will not be in the trail."""

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
        self._on_lost = on_lost
        self._window: Window = {}
        # Taken off to be stored, and kept as it is until it was: so a second try can be told from
        # the first.
        self._taken: Window = {}
        self._taken_at = clock.now()
        self._was_tried = False
        self._refusals = 0
        self._group: _Group | None = None
        self._storing: asyncio.Task[None] | None = None

    def note(self, actor: str, tenant: str, action: str, request_id: str) -> Awaitable[None] | None:
        """A token was given out. What is returned is to be awaited before the answer goes out;
        it raises `Unavailable`."""
        key = (actor, tenant, action)
        if self._is_strict:
            return self._stored(key, request_id)
        noted = self._window.get(key)
        if noted is not None:
            noted.count += 1
        else:
            self._hold(key, Noted(actor, tenant, action, "done", request_id, self._clock.now()))
        return None

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
        key = (actor, action, outcome, route)
        noted = self._window.get(key)
        if noted is not None:
            noted.count += 1
            if noted.tenant != tenant:
                noted.tenant = None
            return
        now = self._clock.now()
        self._hold(key, Noted(actor, tenant, action, outcome, request_id, now, route))

    def _hold(self, key: tuple[str, ...], noted: Noted) -> None:
        if len(self._window) + len(self._taken) >= LARGEST_NUMBER_HELD:
            self._on_lost(1)
        else:
            self._window[key] = noted

    async def run(self) -> None:
        """Until it is cancelled; `close` has the last word."""
        while True:
            await self._clock.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except Exception:
                # The trail depends on this loop: it must outlive what nobody thought of.
                log.exception("audit_flush_failed")

    async def flush(self) -> bool:
        """Stores what was counted; whether it could."""
        if not await self._store_taken():
            return False
        self._taken, self._window = self._window, {}
        self._taken_at, self._was_tried = self._clock.now(), False
        return await self._store_taken()

    async def _store_taken(self) -> bool:
        while self._taken:
            part = dict(islice(self._taken.items(), STORED_AT_ONCE))
            events = [noted.event(self._taken_at) for noted in part.values()]
            since = min(noted.since for noted in part.values())
            append = audit.append_many
            if self._was_tried:
                append = partial(audit.append_missing, since=since)
            self._was_tried = True
            try:
                await self._database.single(partial(append, events=events))
            except StorageError as error:
                log.warning("audit_flush_failed", reason=str(error), events=len(self._taken))
                self._refusals += isinstance(error, StorageFault)
                if self._refusals < REFUSALS_BORNE:
                    return False
                # They would be refused for ever, and all that come behind them not be tried.
                self._lose(part)
            self._refusals = 0
            for key in part:
                del self._taken[key]
            self._was_tried = False
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
        self._lose({**self._taken, **self._window})

    def _lose(self, window: Window) -> None:
        number = sum(noted.count for noted in window.values())
        if number:
            log.error("audit_events_lost", calls=number)
            self._on_lost(number)

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
