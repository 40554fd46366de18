"""NOTIFY, heard: one connection per process, reopened for as long as it takes."""

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
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import SessionsNotKept, StorageError, translated
from ignition_broker.storage.notifications import (
    API_KEYS_CHANNEL,
    GRANTS_CHANNEL,
    REVOKED_KEYS_CHANNEL,
)

APPLICATION_NAME = "ignition-broker listen"
HEARTBEAT_SECONDS = 0.3
HEARTBEAT_TIMEOUT_SECONDS = 2.0
LATE_SECONDS = 0.1
"""For a process that was stopped: what came meanwhile lies in its socket when the timer fires."""
_LONGEST_PAUSE_SECONDS = 0.5

log = structlog.get_logger(__name__)


COUNT_LISTENERS = text("""
    SELECT count(*) FROM pg_stat_activity
    WHERE application_name = :name AND datname = current_database()
""")


async def count_listeners(connection: Connection) -> int:
    """How many processes listen on this database, this one included once it does."""
    return int((await connection.execute(COUNT_LISTENERS, {"name": APPLICATION_NAME})).scalar_one())


class Listener:
    """Hears the channels and says when it is deaf.

    It counts as hearing once a notification of its own, sent by another connection while this one
    was idle, has come back: Postgres delivers them in the order of their commits. A round trip on
    this connection would prove nothing behind a pooler (`storage.pooler`).

    ``on_notice(channel, payload)`` is called for each notification, ``on_alive`` when listening
    begins (what was missed before is unknown) and ``on_lost`` when it ends. ``on_proof(asked_at)``
    says that all committed before that moment of the monotonic clock has been heard, ``on_deaf``
    that Postgres answers and changes are not heard.
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
        """Listens until it is cancelled."""
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
            # At once, not when the task next runs: a cache must not be believed meanwhile.
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
        """False where a notification was sent and not heard, or can't be while sessions are mixed
        up."""
        asked_at = self._clock.monotonic()
        try:
            async with asyncio.timeout(HEARTBEAT_TIMEOUT_SECONDS):
                await self._database.notify(echo.channel, echo.next_payload())
        except (StorageError, TimeoutError) as error:
            # Nobody knows whether it hears; without a proof, memory is not believed for long.
            log.warning("listen_unproved", reason=str(error) or "timed out")
            return not isinstance(error, SessionsNotKept)
        is_back = await echo.is_back()
        if is_back and not ended.is_set():
            self._on_proof(asked_at)
        return is_back


class _Echo:
    """The newest notification of our own, awaited on the connection that listens."""

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
