"""Storing what can't be had a second time: tried until Postgres has taken it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import structlog

from ignition_broker.clock import Clock
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError

FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.5

Result = TypeVar("Result")

log = structlog.get_logger(__name__)


async def until_stored(
    work: Callable[[], Awaitable[Result]],
    clock: Clock,
    *,
    on_failure: Callable[[StorageError], None],
    retried: type[StorageError] = StorageError,
) -> Result:
    """What ``work`` returns when it succeeds, however often it has to be tried.

    ``on_failure(error)`` is told of each failure of the kind ``retried``. ``work`` may have been
    committed although it failed, so it must recognize that at the next try.
    """
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await work()
        except retried as error:
            on_failure(error)
            await clock.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


class PersistentWriter:
    """Carries out statements, each until Postgres has taken it."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def write(self, work: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        """What ``work(connection)`` returns when it succeeds; see `until_stored`."""

        def failed(error: StorageError) -> None:
            log.warning("refresh_store_failed", reason=str(error))

        return await until_stored(
            lambda: self._database.single(work), self._clock, on_failure=failed
        )
