"""Reads grants; callers who ask for the same one at the same time share one statement."""

from __future__ import annotations

import asyncio

from ignition_broker.broker.errors import (
    NotConnected,
    ReauthorizationRequired,
    Unavailable,
    UnknownTenant,
)
from ignition_broker.broker.grants.batched_reads import BatchedReads
from ignition_broker.broker.grants.read_repair import ReadRepair
from ignition_broker.broker.grants.single_flight import SingleFlight
from ignition_broker.broker.grants.token_cache import TokenCache
from ignition_broker.cipher import Cipher, Misplaced
from ignition_broker.model import Grant, GrantStatus, IssuedToken
from ignition_broker.storage import grants
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError


class GrantReader:
    """Keeps what it reads in memory."""

    def __init__(
        self, database: Database, cipher: Cipher, cache: TokenCache, repair: ReadRepair
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._cache = cache
        self._repair = repair
        self._rows = BatchedReads(database)
        self._reads: SingleFlight[tuple[Grant, IssuedToken]] = SingleFlight()

    async def read(self, tenant: str) -> tuple[Grant, IssuedToken]:
        """The connected grant as it is stored, and its token.

        Raises `UnknownTenant`, `NotConnected`, `ReauthorizationRequired`, and `Unavailable` while
        Postgres is away.
        """
        read = self._reads.current(tenant) or self._reads.start(tenant, self.read_alone(tenant))
        return await asyncio.shield(read.task)

    async def read_alone(self, tenant: str) -> tuple[Grant, IssuedToken]:
        """As `read`, by a statement that has not begun yet: it sees all that was committed before
        the call."""
        mark = self._cache.mark()
        try:
            grant = await self._repair.read(tenant, lambda asked_at: self._stored(tenant, asked_at))
        except StorageError as error:
            raise Unavailable("The database can't be used just now.", tenant=tenant) from error
        if self._cache.was_dropped(tenant, mark):
            # A change was notified meanwhile, and nobody knows which of the two came first.
            return await self.read_alone(tenant)
        if grant is not None and grant.status is GrantStatus.CONNECTED and grant.issued is not None:
            (self._cache.replace if grant.went_back else self._cache.put)(grant.issued, mark)
            return grant, grant.issued
        self._cache.forget(tenant)
        if grant is None:
            raise UnknownTenant(tenant)
        if grant.status is GrantStatus.REAUTHORIZATION_REQUIRED:
            raise ReauthorizationRequired(tenant, grant.last_error)
        raise NotConnected(tenant)

    async def _stored(self, tenant: str, asked_at: float) -> Grant | None:
        row = await self._rows.row(tenant)
        if row is None:
            return None
        try:
            return grants.grant_of(self._cipher, row, tenant, asked_at)
        except Misplaced as error:
            await self._database.record_move(error)
            raise
