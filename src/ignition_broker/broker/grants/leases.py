"""Leases: the right to use a refresh token once, kept alive while Ignition is asked.

A lease is short, so that the grant of a replica that was killed is free again in seconds, and its
holder extends it, so that nobody else tries the refresh token that a slow Ignition is busy with.
It counts on Postgres' clock; `LeaseKeeper` knows of it what its own clock says at worst.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from ignition_broker.cipher import Cipher
from ignition_broker.clock import Clock
from ignition_broker.model import Grant, Lease, SealedLease
from ignition_broker.storage import leases
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError

LEASE_SECONDS = 6.0
"""Longer than a statement may take, so that one that fails can be tried again in time."""
EXTEND_EVERY_SECONDS = 1.5
SEND_MARGIN_SECONDS = 3.0
"""What must be left of a lease when the request goes out: time to extend it, and to try again."""
_RETRY_SECONDS = 0.25


def use_before(asked_at: float) -> float:
    """The last moment at which a request may go out by a lease, or an extension, that was asked
    for at ``asked_at``: counted from before the statement, whatever that took."""
    return asked_at + LEASE_SECONDS - SEND_MARGIN_SECONDS


class Leases:
    """A replica's. ``replica``: a name that no other process has."""

    def __init__(self, database: Database, cipher: Cipher, clock: Clock, *, replica: str) -> None:
        self._database = database
        self._cipher = cipher
        self._clock = clock
        self._replica = replica
        self._number = itertools.count(1)

    async def claim(self, grant: Grant, *, is_early: bool = False) -> Lease | None:
        """None while somebody else has it. Raises `StorageError`."""
        asked_at = self._clock.monotonic()
        return await self._database.single(
            lambda c: leases.claim(
                c,
                self._cipher,
                tenant=grant.tenant,
                version=grant.version,
                owner=self._new_owner(),
                lease_seconds=LEASE_SECONDS,
                asked_at=asked_at,
                use_before=use_before(asked_at),
                is_early=is_early,
            )
        )

    async def claim_due(self, *, limit: int, besides: Sequence[str]) -> list[SealedLease]:
        """On at most ``limit`` grants that are due, of other tenants than ``besides``. Raises
        `StorageError`."""
        asked_at = self._clock.monotonic()
        return await self._database.single(
            lambda c: leases.claim_due(
                c,
                owner=self._new_owner(),
                lease_seconds=LEASE_SECONDS,
                asked_at=asked_at,
                use_before=use_before(asked_at),
                limit=limit,
                besides=besides,
            )
        )

    def _new_owner(self) -> str:
        """Another for each claim, so that what is written late of one does not end the next."""
        return f"{self._replica}/{next(self._number)}"


class LeaseKeeper:
    """Extends one lease for as long as `run` runs."""

    def __init__(self, database: Database, clock: Clock, lease: Lease) -> None:
        self._database = database
        self._clock = clock
        self._lease = lease
        self._use_before = lease.use_before

    def may_send(self) -> bool:
        """Whether the refresh token may go out now: nobody else can have a right to it before
        `SEND_MARGIN_SECONDS` are over."""
        return self._clock.monotonic() <= self._use_before

    async def run(self) -> None:
        """Until it is cancelled, or the lease is no longer this one's."""
        while self._use_before > -math.inf:
            left = self._use_before - self._clock.monotonic()
            age = LEASE_SECONDS - SEND_MARGIN_SECONDS - left
            await self._clock.sleep(max(0.0, EXTEND_EVERY_SECONDS - age))
            if not await self.extend():
                await self._clock.sleep(_RETRY_SECONDS)

    async def extend(self) -> bool:
        """Whether it could be extended. One that ran out can be, where nobody has taken it over."""
        asked_at = self._clock.monotonic()
        try:
            is_held = await self._database.single(
                lambda c: leases.extend(c, self._lease, lease_seconds=LEASE_SECONDS)
            )
        except StorageError:
            return False
        self._use_before = use_before(asked_at) if is_held else -math.inf
        return is_held
