"""Rows that are behind what this process knows: each is repaired, or else marked and waited for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ignition_broker.bounded_map import BoundedMap
from ignition_broker.broker.grants.remembered_answers import (
    KnownVersion,
    KnownVersions,
    RememberedAnswers,
)
from ignition_broker.broker.grants.row_repair import RowRepair
from ignition_broker.broker.grants.token_cache import TokenCache
from ignition_broker.clock import Clock
from ignition_broker.model import GrantStatus, IssuedToken, Lease
from ignition_broker.storage.restoring import RowState

AWAITED_SECONDS = 3.0
"""How long to wait for another replica that may hold what a row lacks."""
POLL_SECONDS = 0.25
MOST_BEHIND = 10_000


@dataclass(frozen=True, slots=True)
class _Behind:
    """A row was found behind ``known_version``, first at ``at`` (monotonic clock)."""

    known_version: int
    at: float


class BehindRows:
    """``rows`` writes. ``remember_seconds``: for how long a disconnect is repeated where the
    database has forgotten it. ``on_offer_failed(tenant)``: a remembered answer could not be stored
    again just now."""

    def __init__(
        self,
        rows: RowRepair,
        known: KnownVersions,
        answers: RememberedAnswers,
        cache: TokenCache,
        clock: Clock,
        *,
        remember_seconds: float,
        on_offer_failed: Callable[[str], None],
    ) -> None:
        self._rows = rows
        self._known = known
        self._answers = answers
        self._cache = cache
        self._clock = clock
        self._remember_seconds = remember_seconds
        self._on_offer_failed = on_offer_failed
        self._behind: BoundedMap[str, _Behind] = BoundedMap(MOST_BEHIND)

    def is_awaited(self, tenant: str) -> bool:
        """Whether another replica may be about to store what the tenant's row lacks."""
        behind = self._behind.get(tenant)
        return behind is not None and self._clock.monotonic() < behind.at + AWAITED_SECONDS

    def clear(self, tenant: str) -> None:
        """The tenant's row is no longer behind."""
        self._behind.pop(tenant, None)

    async def put_right(self, tenant: str, found: RowState, known: KnownVersion) -> bool:
        """Repairs a row that is behind, or else marks it.

        Returns whether it was written, so that it has to be read again.
        """
        if self.is_ended(known):
            if found.status is GrantStatus.DISCONNECTED:
                return False
            return await self._rows.disconnect_again(tenant, found, known.version)
        if self._answers.of(tenant) is not None:
            if await self.offer(tenant):
                return True
            self._on_offer_failed(tenant)
        behind = self._behind.get(tenant)
        is_news = behind is None or behind.known_version != known.version
        now = self._clock.monotonic()
        if is_news:
            self._behind.store(tenant, _Behind(known.version, now))
        held = self.newer_token(tenant, found.version)
        wait = AWAITED_SECONDS if held is None else max(AWAITED_SECONDS, held.seconds_left(now))
        await self._rows.mark(tenant, found, known.version, wait_seconds=wait, is_news=is_news)
        return False

    def is_ended(self, known: KnownVersion) -> bool:
        """Whether a disconnect is to be repeated if the database has forgotten it."""
        age = self._clock.monotonic() - known.seen_at
        return known.status is GrantStatus.DISCONNECTED and age < self._remember_seconds

    def newer_token(self, tenant: str, version: int) -> IssuedToken | None:
        """A live token in memory, of that version or a newer one."""
        held = self._cache.get_stale(tenant)
        if held is None or held.version < version:
            return None
        return held if held.seconds_left(self._clock.monotonic()) > 0 else None

    async def offer(self, tenant: str) -> bool:
        """Stores the remembered answer again if the row is older. Whether it was."""
        answer = self._answers.of(tenant)
        return answer is not None and await self._rows.restore(tenant, answer)

    async def outlives_refusal(self, lease: Lease) -> bool:
        """Whether the refresh token that Ignition refused had been replaced by a newer one.

        Stores the newer one again where this process holds it, or else gives other replicas
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
