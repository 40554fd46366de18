"""Grants without a refresh token end with their access token: warned of, then recorded."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from ignition_broker.broker.errors import BrokerError, NotRenewable, ReauthorizationRequired
from ignition_broker.clock import Clock
from ignition_broker.model import IssuedToken
from ignition_broker.storage import renewability
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError
from ignition_broker.storage.renewability import HAS_ENDED

log = structlog.get_logger(__name__)

TICK_SECONDS = 1.0
LAPSES_SECONDS = 10.0
"""How often to look for refresh tokens that end soon: they are warned of long before."""
LIMIT = 100


class UnrenewableWatcher:
    """Runs in every replica. ``on_ending(number)``: so many grants were warned of."""

    def __init__(
        self, database: Database, clock: Clock, *, on_ending: Callable[[int], None]
    ) -> None:
        self._database = database
        self._clock = clock
        self._on_ending = on_ending
        self._lapses_at = float("-inf")

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            try:
                await self.check()
            except StorageError as error:
                log.warning("endings_postponed", reason=str(error))
            except Exception:
                # Admins depend on this loop: it must survive unforeseen errors.
                log.exception("endings_failed")
            await self._clock.sleep(TICK_SECONDS)

    async def check(self) -> None:
        """Warns of what ends soon and records what has ended, each grant once.

        Raises `StorageError`.
        """
        ending = await self._database.single(lambda c: renewability.warn(c, limit=LIMIT))
        for grant in ending:
            log.warning("grant_ending_soon", tenant=grant.tenant, ends_at=grant.at.isoformat())
        if ending:
            self._on_ending(len(ending))
        if self._clock.monotonic() >= self._lapses_at:
            await self._warn_of_lapses()
            self._lapses_at = self._clock.monotonic() + LAPSES_SECONDS
        for grant in await self._database.single(lambda c: renewability.end(c, limit=LIMIT)):
            log.warning("grant_ended", tenant=grant.tenant, ended_at=grant.at.isoformat())

    async def _warn_of_lapses(self) -> None:
        lapsing = await self._database.single(lambda c: renewability.warn_of_lapse(c, limit=LIMIT))
        for grant in lapsing:
            log.warning(
                "refresh_token_ending_soon", tenant=grant.tenant, ends_at=grant.at.isoformat()
            )
        if lapsing:
            self._on_ending(len(lapsing))


async def not_renewable(database: Database, clock: Clock, token: IssuedToken) -> BrokerError:
    """The error for a caller of a grant without a refresh token, which ends with its token.

    Records the end if `UnrenewableWatcher` has not done so yet.
    """
    tenant = token.tenant
    if token.seconds_left(clock.monotonic()) > 0:
        return NotRenewable(tenant, token.expires_at if token.has_known_end else None)
    try:
        for grant in await database.single(lambda c: renewability.end(c, tenant=tenant)):
            log.warning("grant_ended", tenant=grant.tenant, ended_at=grant.at.isoformat())
    except StorageError as error:
        log.warning("endings_postponed", reason=str(error))
    return ReauthorizationRequired(tenant, HAS_ENDED)
