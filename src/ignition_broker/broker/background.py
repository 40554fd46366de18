"""The background refresher: renews what falls due, and does the housekeeping."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from ignition_broker.broker.audit.verification import prune
from ignition_broker.broker.callers.access import Access
from ignition_broker.broker.grants.due_renewals import TICK_SECONDS, DueRenewals
from ignition_broker.broker.grants.issue import Issuer
from ignition_broker.clock import Clock
from ignition_broker.storage import (
    audit_chain,
    authorizations,
    callbacks,
    connect_links,
    sessions,
)
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError
from ignition_broker.storage.listen import count_listeners

log = structlog.get_logger(__name__)

HOUSEKEEPING_SECONDS = 10.0


class BackgroundRefresher:
    """Renews due grants, and does the housekeeping.

    ``renewals``: one for each OAuth client, the default's first. The others run beside it, so that
    none waits for another's Ignition. ``audit_retention_days``: 0 keeps audit events for ever.
    """

    def __init__(
        self,
        database: Database,
        renewals: Sequence[DueRenewals],
        issuer: Issuer,
        access: Access,
        clock: Clock,
        *,
        audit_retention_days: float = 0,
    ) -> None:
        self._database = database
        self._renewals = renewals
        self._issuer = issuer
        self._access = access
        self._clock = clock
        self._audit_retention_days = audit_retention_days

    async def run(self) -> None:
        """Runs until it is cancelled. Renewals under way then go on; `Refresher.end` waits for
        them."""
        first, *others = self._renewals
        beside = [asyncio.create_task(each.run()) for each in others]
        try:
            await self._run(first)
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _run(self, renewals: DueRenewals) -> None:
        housekeeping_at = 0.0
        while True:
            try:
                await self._issuer.flush_use()
                await self._access.flush_use()
                if self._clock.monotonic() >= housekeeping_at:
                    housekeeping_at = self._clock.monotonic() + HOUSEKEEPING_SECONDS
                    await self._keep_house()
            except StorageError as error:
                # Renewals are tried all the same: one table that can't be used is no reason to let
                # grants lapse.
                log.warning("housekeeping_postponed", reason=str(error))
            except Exception:
                log.exception("housekeeping_failed")
            if not await renewals.renew_some():
                await self._clock.sleep(TICK_SECONDS)

    async def _keep_house(self) -> None:
        replicas = max(1, await self._database.single(count_listeners))
        for each in self._renewals:
            each.replicas = replicas
        await self._database.single(authorizations.clear)
        await self._database.single(connect_links.clear)
        await self._database.single(callbacks.clear)
        await self._database.single(sessions.clear)
        await self._database.single(audit_chain.clear_heads)
        if self._audit_retention_days:
            await prune(self._database, self._audit_retention_days)
