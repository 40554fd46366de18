"""Events as they happen, for admins: server-sent events (WHATWG HTML section 9.2).

One look at Postgres a second serves all streams of the process. A stream reads for itself what
follows the last event that it has sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import structlog

from ignition_broker.broker.errors import Unavailable
from ignition_broker.broker.notifications.bodies import members_of
from ignition_broker.clock import Clock
from ignition_broker.storage import outbox
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError
from ignition_broker.storage.outbox import PlacedEvent

log = structlog.get_logger(__name__)

TICK_SECONDS: Final = 1.0
HEARTBEAT_SECONDS: Final = 15.0
"""Less than what reverse proxies wait for, and than what `server.client_limits` does."""
RETRY_MS: Final = 2000
PAGE: Final = 200
MOST_STREAMS: Final = 50
MISSED: Final = "events.missed"
"""The type of the message that says that events are missing: they are older than what is kept, or
the database went back."""


class EventStreams:
    """The streams of one process, at most `MOST_STREAMS`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._streams = 0
        self._ended = asyncio.Event()
        self._newest = 0
        self._looked_at = float("-inf")

    def end(self) -> None:
        """Ends all streams: the process stops. Their callers resume, at another replica."""
        self._ended.set()

    async def open(
        self, last_position: int | None, *, is_still_allowed: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[bytes]:
        """A stream of what follows ``last_position`` (None: from now on).

        ``is_still_allowed`` is asked with each heartbeat; the stream ends where it says False.
        Raises `StorageError`, and `Unavailable` if there are too many streams.
        """
        if self._streams >= MOST_STREAMS:
            raise Unavailable(f"{MOST_STREAMS} event streams are open already; close one.")
        extent = await self._database.once(outbox.extent)
        if last_position is None:
            return self._stream(extent.last_position, is_still_allowed, is_missed=False)
        oldest = (
            extent.last_position + 1 if extent.first_position is None else extent.first_position
        )
        is_missed = not oldest - 1 <= last_position <= extent.last_position
        position = min(last_position, extent.last_position)
        return self._stream(position, is_still_allowed, is_missed=is_missed)

    async def _stream(
        self, position: int, is_still_allowed: Callable[[], Awaitable[bool]], *, is_missed: bool
    ) -> AsyncIterator[bytes]:
        self._streams += 1
        try:
            yield b"retry: %d\n\n" % RETRY_MS
            if is_missed:
                yield message(position, MISSED, {"type": MISSED})
            heartbeat_at = self._clock.monotonic() + HEARTBEAT_SECONDS
            while not self._ended.is_set():
                placed, read_to = await self._after(position)
                for each in placed:
                    yield message(each.position, each.event.type, members_of(each.event))
                position = read_to
                if self._clock.monotonic() >= heartbeat_at:
                    if not await is_still_allowed():
                        return
                    yield b": heartbeat\n\n"
                    heartbeat_at = self._clock.monotonic() + HEARTBEAT_SECONDS
                if len(placed) < PAGE:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(TICK_SECONDS):
                            await self._ended.wait()
        finally:
            self._streams -= 1

    async def _after(self, position: int) -> tuple[Sequence[PlacedEvent], int]:
        """What follows ``position``, and up to where was read. Nothing while Postgres is away."""
        try:
            newest = await self._newest_position()
            if newest <= position:
                return (), position
            page = await self._database.once(partial(outbox.after, position=position, limit=PAGE))
        except StorageError as error:
            log.warning("event_stream_postponed", reason=str(error))
            return (), position
        last = page[-1].position if page else position
        # Test events are passed over.
        return page, last if len(page) == PAGE else max(newest, last)

    async def _newest_position(self) -> int:
        now = self._clock.monotonic()
        if now - self._looked_at >= TICK_SECONDS / 2:
            self._looked_at = now
            self._newest = (await self._database.once(outbox.extent)).last_position
        return self._newest


def message(position: int, kind: str, members: dict[str, Any]) -> bytes:
    """One event of the stream; its id is where to resume."""
    text = json.dumps(members, separators=(",", ":"))
    return f"id: {position}\nevent: {kind}\ndata: {text}\n\n".encode()
