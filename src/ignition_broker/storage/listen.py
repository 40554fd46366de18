"""Receives notifications on one connection for each process, which is reopened when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from typing import Any

import asyncpg
import structlog
from sqlalchemy import text

from ignition_broker.clock import Clock
from ignition_broker.storage.change_notices import (
    API_KEYS_CHANNEL,
    GRANTS_CHANNEL,
    REVOKED_KEYS_CHANNEL,
)
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import SessionsNotKept, StorageError, translated

APPLICATION_NAME = "ignition-broker listen"
HEARTBEAT_SECONDS = 0.3
HEARTBEAT_TIMEOUT_SECONDS = 2.0
LATE_SECONDS = 0.1
"""A further wait, for a process that was suspended: when its timer fires, what arrived meanwhile
is still unread in its socket."""
_LONGEST_PAUSE_SECONDS = 0.5

log = structlog.get_logger(__name__)


COUNT_LISTENERS = text("""
    SELECT count(*) FROM pg_stat_activity
    WHERE application_name = :name AND datname = current_database()
""")


async def count_listeners(connection: Connection) -> int:
    """How many processes listen on this database, including this one once it does."""
    return int((await connection.execute(COUNT_LISTENERS, {"name": APPLICATION_NAME})).scalar_one())


class Listener:
    """Receives notifications, and proves again and again that it still does.

    The proof: a notification of its own, sent on another connection while this one is idle, comes
    back. Postgres delivers notifications in the order of the commits, so all earlier ones have
    arrived by then. A round trip on this connection would prove nothing behind a pooler
    (`storage.pooler`).

    - ``on_notice(channel, payload)``: a notification has arrived.
    - ``on_alive()``: listening began. Changes before that may have been missed.
    - ``on_proof(asked_at)``: every change that was committed before that moment (monotonic clock)
      has arrived.
    - ``on_deaf()``: Postgres answers, but notifications do not arrive.
    - ``on_lost()``: the connection is closed or broken.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        on_notice: Callable[[str, str], None],
        on_alive: Callable[[], None],
        on_proof: Callable[[float], None],
        on_deaf: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._on_notice = on_notice
        self._on_alive = on_alive
        self._on_proof = on_proof
        self._on_deaf = on_deaf
        self._on_lost = on_lost

    async def run(self) -> None:
        """Listens until it is cancelled; reconnects when the connection breaks."""
        pause = 0.05
        while True:
            try:
                connection = await self._database.own_connection(APPLICATION_NAME)
            except StorageError as error:
                log.warning("listen_failed", reason=str(error))
                if isinstance(error, SessionsNotKept):
                    self._on_deaf()
                await self._clock.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                continue
            pause = 0.05
            try:
                with translated():
                    await self._listen_on(connection)
            except StorageError as error:
                log.warning("listen_lost", reason=str(error))
            finally:
                self._on_lost()
                connection.terminate()

    async def _listen_on(self, connection: asyncpg.Connection[Any]) -> None:
        ended = asyncio.Event()
        echo = _Echo()

        def terminated(_connection: object) -> None:
            # Called at once, not when the task runs next: caches must not be trusted meanwhile.
            self._on_lost()
            ended.set()
            echo.give_up()

        connection.add_termination_listener(terminated)

        def heard(_connection: object, _pid: int, channel: str, payload: object) -> None:
            self._on_notice(channel, str(payload))

        await connection.add_listener(GRANTS_CHANNEL, heard)
        await connection.add_listener(API_KEYS_CHANNEL, heard)
        await connection.add_listener(REVOKED_KEYS_CHANNEL, heard)
        await connection.add_listener(echo.channel, echo.heard)
        if ended.is_set():
            return
        self._on_alive()
        while not ended.is_set():
            if not await self._prove(echo, ended):
                log.error("listen_deaf", reason="its own notification did not come back")
                self._on_deaf()
                self._database.doubt_sessions()
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await ended.wait()

    async def _prove(self, echo: _Echo, ended: asyncio.Event) -> bool:
        """Returns False if the notification did not come back, or if sessions are not kept."""
        asked_at = self._clock.monotonic()
        try:
            async with asyncio.timeout(HEARTBEAT_TIMEOUT_SECONDS):
                await self._database.notify(echo.channel, echo.next_payload())
        except (StorageError, TimeoutError) as error:
            # Unknown whether notifications arrive. Without a proof caches are soon not trusted.
            log.warning("listen_unproved", reason=str(error) or "timed out")
            return not isinstance(error, SessionsNotKept)
        is_back = await echo.is_back()
        if is_back and not ended.is_set():
            self._on_proof(asked_at)
        return is_back


class _Echo:
    """The last notification that this process sent to itself, and whether it has come back."""

    def __init__(self) -> None:
        self.channel = f"heard_{secrets.token_hex(8)}"
        self._number = 0
        self._came = asyncio.Event()

    def next_payload(self) -> str:
        self._number += 1
        self._came.clear()
        return str(self._number)

    def heard(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload == str(self._number):
            self._came.set()

    def give_up(self) -> None:
        self._came.set()

    async def is_back(self) -> bool:
        for seconds in (HEARTBEAT_TIMEOUT_SECONDS, LATE_SECONDS):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._came.wait()
                    return True
        return False
