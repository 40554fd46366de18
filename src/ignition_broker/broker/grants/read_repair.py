"""A database that went back is told what this process still knows: read repair, and a sweep.

A failover to a standby that lost the last seconds, or a restored dump, leaves rows that are older
than what replicas have seen. The refresh tokens in them are spent: to use one may end the grant.
So whoever reads such a row stores again what it holds, or says that the row is behind and leaves
its refresh token alone while anything else will do. The decision is
docs/decisions/0011-a-database-that-went-back.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog

from ignition_broker.bounded_map import BoundedMap
from ignition_broker.broker.grants.remembered_answers import (
    KnownVersion,
    KnownVersions,
    RememberedAnswer,
    RememberedAnswers,
    RememberedRevocations,
)
from ignition_broker.broker.grants.row_repair import RowRepair
from ignition_broker.broker.grants.token_cache import TokenCache
from ignition_broker.clock import Clock
from ignition_broker.model import Grant, GrantStatus, IssuedToken, Lease
from ignition_broker.storage import restoring
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError
from ignition_broker.storage.restoring import NO_ROW, RowState

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

SETTLE_SECONDS = 1.5
"""After the change feed was broken and works again, for how long no refresh token is used that is
older than the break: replicas that hold newer answers store them again meanwhile."""
DEAF_SECONDS = 3.0
"""The same while the feed stays broken, from when Postgres answers otherwise."""
AWAITED_SECONDS = 3.0
"""For how long another replica is waited for that may hold what a row lacks."""
POLL_SECONDS = 0.25
SWEEP_SECONDS = 10.0
RETRY_SECONDS = 1.0
"""For a row that could not be written, since somebody had a lock on it."""
ROWS_AT_ONCE = 500
WRITERS = 4
MOST_NOTICED = 10_000


@dataclass(frozen=True, slots=True)
class _Noticed:
    """That a row was behind: by which version, and since when that is known."""

    known_version: int
    at: float


class ReadRepair:
    """``rows`` writes. ``remember_seconds``: for how long what was stored is kept, and what was
    ended is ended again; 0: a database that went back is said to have, and believed."""

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
        self._cache = cache
        self._clock = clock
        self._remember_seconds = remember_seconds
        self._rows = rows
        self._known = KnownVersions()
        self._answers = RememberedAnswers(clock, seconds=remember_seconds)
        self._revocations = RememberedRevocations(clock, seconds=remember_seconds)
        self._noticed: BoundedMap[str, _Noticed] = BoundedMap(MOST_NOTICED)
        self._is_fed = False
        self._lost_at: float | None = None
        self._settled_at = 0.0
        self._is_out_of_reach = False
        self._reached_at = 0.0
        self._to_check: set[str] = set()
        self._sweeps_all = False
        self._sweep_at = clock.monotonic() + SWEEP_SECONDS
        self._to_compare: list[str] = []
        self._is_wanted = asyncio.Event()
        self.store_above = rows.store_above
        self.note_revocation = self._revocations.remember

    def __len__(self) -> int:
        """How many answers are remembered."""
        return len(self._answers)

    def known(self, tenant: str) -> KnownVersion | None:
        """To be asked before a row is read, and compared with what was read."""
        return self._known.of(tenant)

    def is_behind(self, lease: Lease) -> bool:
        """Whether its refresh token must not be used now, although it was claimed."""
        known = self._known.of(lease.tenant)
        return (
            known is not None
            and known.is_ahead_of(lease.version, lease.issued_since)
            and (not lease.was_uncertain or self.is_awaited(lease.tenant))
        )

    @property
    def is_settling(self) -> bool:
        """Whether replicas may be about to store again what a failover lost, of which this one may
        never have heard."""
        if self._lost_at is None:
            return False
        if self._is_fed:
            return self._clock.monotonic() < self._settled_at
        return self._is_out_of_reach or self._clock.monotonic() < self._reached_at + DEAF_SECONDS

    def is_awaited(self, tenant: str) -> bool:
        """Whether a replica may be about to store what the tenant's row lacks."""
        noticed = self._noticed.get(tenant)
        return noticed is not None and self._clock.monotonic() < noticed.at + AWAITED_SECONDS

    def feed_ended(self) -> None:
        """Nothing is heard of any more: perhaps since Postgres fails over."""
        if self._is_fed:
            self._is_fed, self._is_out_of_reach = False, True
            self._lost_at = self._clock.monotonic()
            self._is_wanted.set()

    def feed_confirmed(self) -> None:
        """The change feed works."""
        if self._is_fed:
            return
        self._is_fed = True
        if self._lost_at is not None:
            self._settled_at = self._clock.monotonic() + SETTLE_SECONDS
            self._sweeps_all = True
            # After what is remembered: these can be marked alone.
            self._to_compare = self._known.tenants()
            self._is_wanted.set()

    def note_change(self, tenant: str, version: int, status: GrantStatus) -> None:
        """The change feed brought this."""
        known = self._known.of(tenant)
        if status is GrantStatus.DISCONNECTED:
            # A disconnect counts whatever was there before, and nothing else says so.
            self._answers.forget(tenant)
        elif known is not None and version < known.version:
            self._to_check.add(tenant)
            self._is_wanted.set()
            return
        else:
            answer = self._answers.of(tenant)
            if answer is not None and answer.stored.version < version:
                self._answers.forget(tenant)
        self._known.note(tenant, version, status, seen_at=self._clock.monotonic())

    def note_stored(self, tenant: str, answer: RememberedAnswer) -> None:
        """This process stored an answer of Ignition's."""
        self._answers.remember(tenant, answer)
        self._noticed.pop(tenant, None)
        now = self._clock.monotonic()
        self._known.note(tenant, answer.stored.version, GrantStatus.CONNECTED, seen_at=now)

    def note_read(self, tenant: str, found: RowState, *, asked_at: float) -> None:
        """A row was read that was not behind what was known then; something newer may have been
        stored or heard of since."""
        known = self._known.of(tenant)
        if known is None or not known.is_ahead_of(found.version, found.issued_since):
            self._noticed.pop(tenant, None)
            self._known.note(tenant, found.version, found.status, seen_at=asked_at)

    async def put_right(self, tenant: str, found: RowState, known: KnownVersion) -> bool:
        """Of a row that is behind; whether it was written, so that it is to be read again."""
        if self._is_ended(known):
            if found.status is GrantStatus.DISCONNECTED:
                return False
            return await self._rows.disconnect_again(tenant, found, known.version)
        if self._answers.of(tenant) is not None:
            if await self.offer(tenant):
                return True
            self._to_check.add(tenant)
        noticed = self._noticed.get(tenant)
        is_news = noticed is None or noticed.known_version != known.version
        now = self._clock.monotonic()
        if is_news:
            self._noticed.store(tenant, _Noticed(known.version, now))
        held = self._held(tenant, found.version)
        wait = AWAITED_SECONDS if held is None else max(AWAITED_SECONDS, held.seconds_left(now))
        await self._rows.mark(tenant, found, known.version, wait_seconds=wait, is_news=is_news)
        return False

    async def read(
        self, tenant: str, read: Callable[[float], Awaitable[Grant | None]]
    ) -> Grant | None:
        """The grant that ``read(asked_at)`` gives, and as it is to be taken where its row is behind
        and stays so. ``asked_at``: now, on the monotonic clock."""
        while True:
            known = self._known.of(tenant)
            asked_at = self._clock.monotonic()
            grant = await self._reaching(read(asked_at))
            found = NO_ROW if grant is None else RowState.of(grant)
            if known is not None and known.is_ahead_of(found.version, found.issued_since):
                if await self.put_right(tenant, found, known):
                    continue
                grant = grant and self.as_known(grant, known)
            elif grant is not None:
                self.note_read(tenant, found, asked_at=asked_at)
            went_back = known is not None and found.version < known.version
            is_awaited = self.is_awaited(tenant) or self._may_be_behind(found)
            if grant is None or not (went_back or is_awaited):
                return grant
            is_held = grant.lease_is_held or is_awaited
            return replace(grant, lease_is_held=is_held, went_back=went_back)

    def _may_be_behind(self, found: RowState) -> bool:
        lost_at = self._lost_at
        return lost_at is not None and self.is_settling and found.issued_since < lost_at

    async def _reaching(self, asked: Awaitable[Result]) -> Result:
        """Notes whether Postgres answers, which counts while the change feed is broken."""
        try:
            answer = await asked
        except StorageError:
            self._is_out_of_reach = True
            raise
        if self._is_out_of_reach:
            self._is_out_of_reach, self._reached_at = False, self._clock.monotonic()
        return answer

    def as_known(self, grant: Grant, known: KnownVersion) -> Grant:
        """The grant as it is to be taken while its row is behind: its refresh token counts as
        spent, a newer access token in memory serves in its place, a disconnect stays one."""
        if self._is_ended(known):
            return replace(grant, status=GrantStatus.DISCONNECTED, issued=None)
        issued, held = grant.issued, self._held(grant.tenant, grant.version)
        if issued is not None and held is not None and held.dies_at > issued.dies_at:
            # Under the row's version, so that the row's next change is heard as one.
            issued = replace(held, version=grant.version)
        return replace(grant, issued=issued, is_uncertain=True)

    def _is_ended(self, known: KnownVersion) -> bool:
        """Whether a disconnect is to be carried out again where the database has forgotten it."""
        age = self._clock.monotonic() - known.seen_at
        return known.status is GrantStatus.DISCONNECTED and age < self._remember_seconds

    def _held(self, tenant: str, version: int) -> IssuedToken | None:
        """A live token in memory, of that version or a newer one."""
        held = self._cache.get_stale(tenant)
        if held is None or held.version < version:
            return None
        return held if held.seconds_left(self._clock.monotonic()) > 0 else None

    async def offer(self, tenant: str) -> bool:
        """Stores again what this process remembers, if the row is older; whether it was."""
        answer = self._answers.of(tenant)
        return answer is not None and await self._rows.restore(tenant, answer)

    async def outlives_refusal(self, lease: Lease) -> bool:
        """Whether Ignition refused a refresh token that a newer one had replaced.

        Stores the newer one again where this process holds it, else gives other replicas
        `AWAITED_SECONDS` to do so.
        """
        known = self._known.of(lease.tenant)
        if known is None or not known.is_ahead_of(lease.version, lease.issued_since):
            return False
        give_up_at = self._clock.monotonic() + AWAITED_SECONDS
        while True:
            if await self.offer(lease.tenant):
                return True
            found = await self._rows.state_of(lease.tenant)
            if found is not None and found.version != lease.version:
                return True
            if self._clock.monotonic() >= give_up_at:
                return False
            await self._clock.sleep(POLL_SECONDS)

    async def run(self) -> None:
        """Looks for rows that are behind when the change feed began anew, when an older version
        was heard of, and every `SWEEP_SECONDS`; until it is cancelled."""
        while True:
            is_deaf = self._lost_at is not None and not self._is_fed
            is_soon = self._to_check or self._to_compare or is_deaf
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS if is_soon else SWEEP_SECONDS):
                    await self._is_wanted.wait()
            self._is_wanted.clear()
            if self._clock.monotonic() >= self._sweep_at:
                self._sweep_at = self._clock.monotonic() + SWEEP_SECONDS
                self._sweeps_all = True
            try:
                await self._sweep()
            except Exception as error:
                if not isinstance(error, StorageError):
                    # Grants depend on this loop: it must outlive what nobody thought of.
                    log.exception("repair_failed")
                self._is_wanted.set()
                await self._clock.sleep(POLL_SECONDS)

    async def _sweep(self) -> None:
        tenants, sweeps_all = self._to_check, self._sweeps_all
        self._to_check, self._sweeps_all = set(), False
        try:
            await self._swept(tenants, sweeps_all=sweeps_all)
        except BaseException:
            self._to_check |= tenants
            self._sweeps_all |= sweeps_all
            raise

    async def _swept(self, tenants: set[str], *, sweeps_all: bool) -> None:
        if sweeps_all:
            since = self._clock.monotonic() - self._remember_seconds
            tenants.update(self._answers.tenants(), self._known.disconnected_since(since))
            for name, created_at in self._revocations.all():
                await self._rows.revoke_key_again(name, created_at)
        everyone = sorted(tenants)
        if not everyone and self._is_out_of_reach:
            await self._check([])
        for start in range(0, len(everyone), ROWS_AT_ONCE):
            await self._check(everyone[start : start + ROWS_AT_ONCE])
        while self._to_compare:
            batch = self._to_compare[-ROWS_AT_ONCE:]
            await self._check(batch)
            del self._to_compare[-len(batch) :]

    async def check(self, tenant: str) -> None:
        """Puts the tenant's row right, or says that it is behind."""
        try:
            await self._check([tenant])
        except StorageError as error:
            log.warning("grant_repair_failed", tenant=tenant, reason=str(error))

    async def _check(self, tenants: Sequence[str]) -> None:
        known = {tenant: self._known.of(tenant) for tenant in tenants}
        asked_at = self._clock.monotonic()
        found = await self._reaching(
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
            await asyncio.gather(*(self.put_right(*each) for each in group))
