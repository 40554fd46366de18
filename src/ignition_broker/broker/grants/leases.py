"""Leases: the right to use a refresh token once, kept alive while Ignition is asked.

A lease is short, so that the grant of a replica that was killed is free again within seconds. Its
holder extends it, so that no other replica tries the refresh token while a slow Ignition is busy
with it. A lease ends by Postgres' clock; `LeaseKeeper` goes by this process's clock, and assumes
the worst.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Sequence

import structlog

from ignition_broker.broker.grants.storage_retries import PersistentWriter
from ignition_broker.cipher import Cipher, CipherError, Misplaced
from ignition_broker.clock import Clock
from ignition_broker.deadlines import is_done_within
from ignition_broker.grant_ids import DEFAULT_CLIENT
from ignition_broker.model import Grant, Lease, SealedLease
from ignition_broker.storage import leases
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError

LEASE_SECONDS = 6.0
"""Longer than a statement may take, so that a failed extension can be tried again in time."""
EXTEND_EVERY_SECONDS = 1.5
SEND_MARGIN_SECONDS = 3.0
"""What must be left of a lease when the request goes out: time to extend it, and to try again."""
_RETRY_SECONDS = 0.25

log = structlog.get_logger(__name__)


def use_before(asked_at: float) -> float:
    """The last moment at which the request may go out, on the monotonic clock.

    ``asked_at``: right before the statement that claimed or extended the lease, so that it does not
    matter how long the statement took.
    """
    return asked_at + LEASE_SECONDS - SEND_MARGIN_SECONDS


class Leases:
    """Claims leases for one replica. ``replica``: a name that no other process has."""

    def __init__(self, database: Database, cipher: Cipher, clock: Clock, *, replica: str) -> None:
        self._database = database
        self._cipher = cipher
        self._clock = clock
        self._replica = replica
        self._number = itertools.count(1)
        self._writer = PersistentWriter(database, clock)
        self._being_given_back: set[asyncio.Task[None]] = set()

    async def claim(self, grant: Grant, *, is_early: bool = False) -> Lease | None:
        """The lease on the grant's current version; None while somebody else has it.

        ``is_early``: a caller forces the renewal well before the token expires. Raises
        `StorageError`, or `CipherError` as `opened` does.
        """
        asked_at = self._clock.monotonic()
        sealed = await self._database.single(
            lambda c: leases.claim(
                c,
                tenant=grant.tenant,
                version=grant.version,
                owner=self._new_owner(),
                lease_seconds=LEASE_SECONDS,
                asked_at=asked_at,
                use_before=use_before(asked_at),
                is_early=is_early,
            )
        )
        return None if sealed is None else await self.opened(sealed)

    async def claim_due(
        self, *, limit: int, besides: Sequence[str], client: str = DEFAULT_CLIENT
    ) -> list[SealedLease]:
        """Leases on at most ``limit`` grants of an OAuth client that are due, but for ``besides``.

        Each is to be `opened` when its turn comes. Raises `StorageError`.
        """
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
                client=client,
            )
        )

    async def opened(self, lease: SealedLease) -> Lease:
        """The lease with its refresh token decrypted.

        Raises `CipherError` if no key decrypts it. The grant is then set aside: the lease ends, and
        the background refresher leaves the grant alone for an hour.
        """
        try:
            return leases.opened(self._cipher, lease)
        except CipherError as error:
            log.warning("grant_unreadable", tenant=lease.tenant, reason=str(error))
            await self._set_aside(lease, error)
            raise

    async def give_back(self, lease: Lease | SealedLease) -> None:
        """Ends a lease whose refresh token was not sent. An outage of Postgres is waited out."""
        await self._writer.write(lambda c: leases.give_back(c, lease))

    def give_back_soon(self, lease: SealedLease) -> None:
        """As `give_back`, in the background; `wait_given_back` waits for it."""
        task = asyncio.create_task(self.give_back(lease))
        self._being_given_back.add(task)
        task.add_done_callback(self._being_given_back.discard)

    async def wait_given_back(self, seconds: float) -> None:
        """Waits until nothing is being given back, for at most ``seconds``."""
        if self._being_given_back:
            all_done = asyncio.gather(*self._being_given_back, return_exceptions=True)
            await is_done_within(all_done, seconds)

    async def _set_aside(self, lease: SealedLease, error: CipherError) -> None:
        try:
            await self._database.single(lambda c: leases.set_aside(c, lease))
            if isinstance(error, Misplaced):
                await self._database.record_move(error)
        except StorageError as away:
            # The lease runs out, and whoever claims the grant next sets it aside.
            log.warning("grant_not_set_aside", tenant=lease.tenant, reason=str(away))

    def _new_owner(self) -> str:
        """A new name for each claim, so that a late write of one lease can't end the next."""
        return f"{self._replica}/{next(self._number)}"


class LeaseKeeper:
    """Keeps one lease alive for as long as `run` runs."""

    def __init__(self, database: Database, clock: Clock, lease: Lease) -> None:
        self._database = database
        self._clock = clock
        self._lease = lease
        self._use_before = lease.use_before

    def may_send(self) -> bool:
        """Whether the refresh token may go out now: nobody else can claim the grant within the
        next `SEND_MARGIN_SECONDS`."""
        return self._clock.monotonic() <= self._use_before

    async def run(self) -> None:
        """Extends the lease until it is cancelled or somebody else has the lease."""
        while self._use_before > -math.inf:
            left = self._use_before - self._clock.monotonic()
            age = LEASE_SECONDS - SEND_MARGIN_SECONDS - left
            await self._clock.sleep(max(0.0, EXTEND_EVERY_SECONDS - age))
            if not await self.extend():
                await self._clock.sleep(_RETRY_SECONDS)

    async def extend(self) -> bool:
        """Whether the lease could be extended; even after it ran out, if nobody has claimed it."""
        asked_at = self._clock.monotonic()
        try:
            is_held = await self._database.single(
                lambda c: leases.extend(c, self._lease, lease_seconds=LEASE_SECONDS)
            )
        except StorageError:
            return False
        self._use_before = use_before(asked_at) if is_held else -math.inf
        return is_held
