"""NOTIFY, heard: one connection per process, reopened for as long as it takes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import asyncpg
import structlog
from sqlalchemy import text

from ignition_broker.clock import Clock
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.engine import Database
from ignition_broker.storage.errors import StorageError

GRANTS_CHANNEL = "grants"
API_KEYS_CHANNEL = "api_keys"
APPLICATION_NAME = "ignition-broker listen"
HEARTBEAT_SECONDS = 0.3
HEARTBEAT_TIMEOUT_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 1.0

log = structlog.get_logger(__name__)


COUNT_LISTENERS = text("""
    SELECT count(*) FROM pg_stat_activity
    WHERE application_name = :name AND datname = current_database()
""")


async def count_listeners(connection: Connection) -> int:
    """How many processes listen on this database, this one included once it does."""
    return int((await connection.execute(COUNT_LISTENERS, {"name": APPLICATION_NAME})).scalar_one())


class Listener:
    """Hears both channels and says when it is deaf.

    ``on_notice(channel, payload)`` is called for each notification, ``on_alive`` when listening
    begins (what was missed before is unknown) and ``on_lost`` when it ends. ``on_proof(asked_at)``
    says that all committed before that moment of the monotonic clock has been heard.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        on_notice: Callable[[str, str], None],
        on_alive: Callable[[], None],
        on_proof: Callable[[float], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._on_notice = on_notice
        self._on_alive = on_alive
        self._on_proof = on_proof
        self._on_lost = on_lost

    async def run(self) -> None:
        """Listens until it is cancelled."""
        pause = 0.05
        while True:
            try:
                connection = await self._database.own_connection(APPLICATION_NAME)
            except StorageError as error:
                log.warning("listen_failed", reason=str(error))
                await self._clock.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                continue
            pause = 0.05
            try:
                await self._listen_on(connection)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                log.warning("listen_lost", reason=type(error).__name__)
            finally:
                self._on_lost()
                connection.terminate()

    async def _listen_on(self, connection: asyncpg.Connection[Any]) -> None:
        ended = asyncio.Event()

        def terminated(_connection: object) -> None:
            # At once, not when the task next runs: a cache must not be believed meanwhile.
            self._on_lost()
            ended.set()

        connection.add_termination_listener(terminated)

        def heard(_connection: object, _pid: int, channel: str, payload: object) -> None:
            self._on_notice(channel, str(payload))

        await connection.add_listener(GRANTS_CHANNEL, heard)
        await connection.add_listener(API_KEYS_CHANNEL, heard)
        if ended.is_set():
            return
        self._on_alive()
        while not ended.is_set():
            asked_at = self._clock.monotonic()
            # Postgres sends what it has to notify of ahead of the answer.
            await connection.execute("SELECT 1", timeout=HEARTBEAT_TIMEOUT_SECONDS)
            self._on_proof(asked_at)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await ended.wait()
