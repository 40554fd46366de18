"""Read repair: a database that went back is told what this process still knows.

A failover to a standby that lost the last seconds, or a restored dump, leaves rows that are older
than what replicas have seen. The refresh tokens in them are spent: using one may end the grant. So
whoever reads such a row stores again what it holds. If it holds nothing, it marks the row as behind
and leaves its refresh token alone while there is any other token to serve. See
docs/decisions/0011-a-database-that-went-back.md; `repair_sweep` looks for such rows unasked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace

import structlog

from ignition_broker.broker.grants.behind_rows import BehindRows
from ignition_broker.broker.grants.remembered_answers import (
    KnownVersion,
    KnownVersions,
    RememberedAnswer,
    RememberedAnswers,
    RememberedRevocations,
)
from ignition_broker.broker.grants.repair_queue import RepairQueue
from ignition_broker.broker.grants.row_repair import RowRepair
from ignition_broker.broker.grants.settling import Settling
from ignition_broker.broker.grants.token_cache import TokenCache
from ignition_broker.clock import Clock
from ignition_broker.model import Grant, GrantStatus, Lease
from ignition_broker.storage import restoring
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError
from ignition_broker.storage.restoring import NO_ROW, RowState

log = structlog.get_logger(__name__)

WRITERS = 4
"""Rows written at once."""


class ReadRepair:
    """Compares rows with what this process knows, and repairs those that are behind.

    ``rows`` writes them. ``remember_seconds``: for how long an answer that was stored is kept to be
    stored again, and a disconnect or a revocation is repeated where the database has forgotten it.
    0: a database that went back is reported, and believed.
    """

    def __init__(
        self,
        database: Database,
        rows: RowRepair,
        cache: TokenCache,
        clock: Clock,
        *,
        remember_seconds: float,
    ) -> None:
        self._database = database
        self._clock = clock
        self._remember_seconds = remember_seconds
        self._rows = rows
        self._known = KnownVersions()
        self._answers = RememberedAnswers(clock, seconds=remember_seconds)
        self._revocations = RememberedRevocations(clock, seconds=remember_seconds)
        self.settling = Settling(clock)
        self.queue = RepairQueue()
        self._behind = BehindRows(
            rows,
            self._known,
            self._answers,
            cache,
            clock,
            remember_seconds=remember_seconds,
            on_offer_failed=self.queue.check,
        )
        self.is_awaited = self._behind.is_awaited
        self.offer = self._behind.offer
        self.outlives_refusal = self._behind.outlives_refusal
        self.store_above = rows.store_above
        self.note_revocation = self._revocations.remember

    def __len__(self) -> int:
        """How many answers are remembered."""
        return len(self._answers)

    def known(self, tenant: str) -> KnownVersion | None:
        """The newest version that this process has seen or heard of."""
        return self._known.of(tenant)

    def is_behind(self, lease: Lease) -> bool:
        """Whether the lease's refresh token must not be used now, although it was claimed."""
        known = self._known.of(lease.tenant)
        return (
            known is not None
            and known.is_ahead_of(lease.version, lease.issued_since)
            and (not lease.was_uncertain or self.is_awaited(lease.tenant))
        )

    @property
    def is_settling(self) -> bool:
        """Whether replicas may be about to store again what a failover lost."""
        return self.settling.is_settling

    def feed_ended(self) -> None:
        """The change feed is broken, perhaps because Postgres fails over."""
        if self.settling.feed_ended():
            self.queue.wake()

    def feed_confirmed(self) -> None:
        """The change feed works. If it was broken before, every row is compared."""
        if self.settling.feed_confirmed():
            self.queue.is_full = True
            # After the rows of which an answer is remembered: these can only be marked.
            self.queue.to_compare = self._known.tenants()
            self.queue.wake()

    def note_change(self, tenant: str, version: int, status: GrantStatus) -> None:
        """The change feed brought this."""
        known = self._known.of(tenant)
        if status is GrantStatus.DISCONNECTED:
            # A disconnect counts at any version: nothing else tells of it.
            self._answers.forget(tenant)
        elif known is not None and version < known.version:
            self.queue.check_now(tenant)
            return
        else:
            answer = self._answers.of(tenant)
            if answer is not None and answer.stored.version < version:
                self._answers.forget(tenant)
        self._known.note(tenant, version, status, seen_at=self._clock.monotonic())

    def note_stored(self, tenant: str, answer: RememberedAnswer) -> None:
        """This process has stored an answer of Ignition's."""
        self._answers.remember(tenant, answer)
        self._behind.clear(tenant)
        now = self._clock.monotonic()
        self._known.note(tenant, answer.stored.version, GrantStatus.CONNECTED, seen_at=now)

    def note_read(self, tenant: str, found: RowState, *, asked_at: float) -> None:
        """A row was read that was not behind what was known when it was asked for.

        Something newer may have been stored or notified since. ``asked_at``: on the monotonic
        clock.
        """
        known = self._known.of(tenant)
        if known is None or not known.is_ahead_of(found.version, found.issued_since):
            self._behind.clear(tenant)
            self._known.note(tenant, found.version, found.status, seen_at=asked_at)

    async def read(
        self, tenant: str, read: Callable[[float], Awaitable[Grant | None]]
    ) -> Grant | None:
        """The grant that ``read(asked_at)`` returns, repaired if its row is behind.

        Where it can't be repaired, the grant is returned as it is to be used until then.
        ``asked_at``: right before the statement, on the monotonic clock. Raises what ``read``
        raises.
        """
        while True:
            known = self._known.of(tenant)
            asked_at = self._clock.monotonic()
            grant = await self.settling.reaching(read(asked_at))
            found = NO_ROW if grant is None else RowState.of(grant)
            if known is not None and known.is_ahead_of(found.version, found.issued_since):
                if await self._behind.put_right(tenant, found, known):
                    continue
                grant = grant and self._usable(grant, known)
            elif grant is not None:
                self.note_read(tenant, found, asked_at=asked_at)
            went_back = known is not None and found.version < known.version
            is_awaited = self.is_awaited(tenant) or self.settling.may_be_behind(found.issued_since)
            if grant is None or not (went_back or is_awaited):
                return grant
            is_held = grant.lease_is_held or is_awaited
            return replace(grant, lease_is_held=is_held, went_back=went_back)

    def _usable(self, grant: Grant, known: KnownVersion) -> Grant:
        """The grant as it is to be used while its row is behind.

        A disconnect stays one. Otherwise the refresh token counts as spent, and a newer access
        token in memory serves in place of the row's.
        """
        if self._behind.is_ended(known):
            return replace(grant, status=GrantStatus.DISCONNECTED, issued=None)
        issued, held = grant.issued, self._behind.newer_token(grant.tenant, grant.version)
        if issued is not None and held is not None and held.dies_at > issued.dies_at:
            # Under the row's version, so that the row's next change counts as newer.
            issued = replace(held, version=grant.version)
        return replace(grant, issued=issued, is_uncertain=True)

    async def check(self, tenant: str) -> None:
        """Repairs the tenant's row if it is behind, or marks it. Logs an outage of Postgres."""
        try:
            await self.check_all([tenant])
        except StorageError as error:
            log.warning("grant_repair_failed", tenant=tenant, reason=str(error))

    async def check_all(self, tenants: Sequence[str]) -> None:
        """As `check`, by one read of all their rows. Raises `StorageError`."""
        known = {tenant: self._known.of(tenant) for tenant in tenants}
        asked_at = self._clock.monotonic()
        found = await self.settling.reaching(
            self._database.once(lambda c: restoring.states(c, tenants, asked_at=asked_at))
        )
        behind = []
        for tenant, seen in known.items():
            row = found.get(tenant, NO_ROW)
            if seen is not None and seen.is_ahead_of(row.version, row.issued_since):
                behind.append((tenant, row, seen))
            elif tenant in found:
                self.note_read(tenant, row, asked_at=asked_at)
        for start in range(0, len(behind), WRITERS):
            group = behind[start : start + WRITERS]
            await asyncio.gather(*(self._behind.put_right(*each) for each in group))

    def remembered_tenants(self) -> Iterable[str]:
        """Those that can be repaired: an answer or a disconnect of theirs is remembered."""
        yield from self._answers.tenants()
        yield from self._known.disconnected_since(self._clock.monotonic() - self._remember_seconds)

    async def revoke_keys_again(self) -> None:
        """Repeats the remembered revocations of API keys. Raises `StorageError`."""
        for name, created_at in self._revocations.all():
            await self._rows.revoke_key_again(name, created_at)
