"""Delivers events to their destinations: at least once, in order by tenant, by any replica.

Over 250 lines: claiming, sending and recording share what is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar, assert_never

import structlog

from ignition_broker.broker.notifications.destinations import (
    Destination,
    Kind,
    SettingsDestinations,
)
from ignition_broker.broker.notifications.sending import NotTaken, SendResult, Taken
from ignition_broker.cipher import Cipher, CipherError
from ignition_broker.clock import Clock
from ignition_broker.storage import deliveries, outbox, webhooks
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.database import Database
from ignition_broker.storage.deliveries import Claimant, ClaimedDelivery
from ignition_broker.storage.errors import StorageError
from ignition_broker.storage.outbox import OutboxEvent

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

TICK_SECONDS = 1.0
BATCH = 500
AT_ONCE_PER_DESTINATION = 4
LEASE_SECONDS = 45.0
"""Longer than any try takes."""
RECORD_AGAIN_SECONDS: Final = (0.2, 1.0, 3.0, 8.0)
AFFIRM_SECONDS = 60.0
KEPT_SECONDS = 7 * 86_400.0
"""For how long events and the log of their deliveries are kept."""

BACK_OFF_SECONDS: Final = (1, 5, 30, 120, 600, 1800, 3600, 7200, 14_400, 28_800, 43_200)
"""Before each further try; the last one goes on until `deliveries.TRIED_FOR_SECONDS` are over."""
LONGEST_ASKED_SECONDS: Final = 3600.0

GATHER_SECONDS: Final = 15.0
"""How long an event for people waits for others, for one message."""
APART_SECONDS: Final = 600.0
"""How far apart two messages to one destination for people are."""
PEOPLE: Final = (Kind.SLACK.value, Kind.EMAIL.value)


class Sender(Protocol):
    """Sends one event, or several in one message where the destination is for people."""

    async def send(self, destination: Destination, events: Sequence[OutboxEvent]) -> SendResult: ...

    async def aclose(self) -> None: ...


class Deliverer:
    """Runs in every replica. ``on_result(kind, outcome)`` is called after each try: ``taken``,
    ``failed`` or ``given_up``."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        sender: Sender,
        settings: SettingsDestinations,
        clock: Clock,
        *,
        on_result: Callable[[str, str], None],
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._sender = sender
        self._settings = settings
        self._clock = clock
        self._on_result = on_result
        self._name = secrets.token_hex(6)
        self._claims = 0
        self._under_way: set[asyncio.Task[None]] = set()
        self._at_once: Counter[str] = Counter()
        self._wake = asyncio.Event()
        self._affirm_at = float("-inf")

    async def run(self) -> None:
        """Runs until it is cancelled; `close` waits for what is under way."""
        while True:
            try:
                await self.turn()
            except StorageError as error:
                log.warning("deliveries_postponed", reason=str(error))
            except Exception:
                # It must survive unforeseen errors.
                log.exception("deliveries_failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._wake.wait()
            self._wake.clear()

    async def turn(self) -> None:
        """Makes the deliveries of new events and starts to send what is due. Raises
        `StorageError`."""
        if self._clock.monotonic() >= self._affirm_at:
            await self._keep_house()
            self._affirm_at = self._clock.monotonic() + AFFIRM_SECONDS
        work = await self._database.once(deliveries.look)
        spread = partial(outbox.spread, limit=BATCH)
        while work.has_new and await self._database.single(spread) == BATCH:
            pass
        if work.has_new or work.has_due:
            while await self._start_events():
                pass
            while await self._start_digest():
                pass

    async def close(self, seconds: float) -> None:
        """Waits that long for what is under way. What is cut off then is sent again."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=seconds)
        for task in list(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._sender.aclose()

    async def _start_events(self) -> bool:
        """Claims events for webhooks and starts to send them; whether more may be due."""
        claimant = self._claimant()
        claimed = await self._database.single(
            partial(deliveries.claim, claimant=claimant, limit=AT_ONCE_PER_DESTINATION)
        )
        for delivery in claimed:
            self._start(claimant.owner, [delivery])
        return len(claimed) == AT_ONCE_PER_DESTINATION

    async def _start_digest(self) -> bool:
        claimant = self._claimant()
        claimed = await self._database.single(
            partial(
                deliveries.claim_digest,
                claimant=claimant,
                kinds=PEOPLE,
                gather_seconds=GATHER_SECONDS,
                apart_seconds=APART_SECONDS,
                limit=BATCH * 10,
            )
        )
        if claimed:
            self._start(claimant.owner, claimed)
        return bool(claimed)

    def _claimant(self) -> Claimant:
        self._claims += 1
        busy = [each for each, count in self._at_once.items() if count >= AT_ONCE_PER_DESTINATION]
        return Claimant(
            owner=f"{self._name}-{self._claims}",
            lease_seconds=LEASE_SECONDS,
            known=list(self._settings.by_id),
            busy=busy,
        )

    def _start(self, owner: str, claimed: Sequence[ClaimedDelivery]) -> None:
        webhook = claimed[0].webhook
        self._at_once[webhook] += 1
        task = asyncio.create_task(self._deliver(owner, claimed))
        self._under_way.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._under_way.discard(task)
            self._at_once[webhook] -= 1
            if not self._at_once[webhook]:
                del self._at_once[webhook]
            # The tenant's next event need not wait for the next tick.
            self._wake.set()

        task.add_done_callback(ended)

    async def _deliver(self, owner: str, claimed: Sequence[ClaimedDelivery]) -> None:
        webhook = claimed[0].webhook
        try:
            kind, result = await self._tried(claimed)
            if result is not None:
                await self._record(owner, claimed, kind, result)
        except StorageError as error:
            # The lease runs out, and it is sent again.
            log.warning("delivery_not_recorded", webhook=webhook, reason=str(error))
        except Exception:
            log.exception("delivery_failed", webhook=webhook)

    async def _tried(self, claimed: Sequence[ClaimedDelivery]) -> tuple[str, SendResult | None]:
        """The destination's kind, and what came of the try. None: the destination was deleted
        meanwhile, and its deliveries with it."""
        try:
            destination = await self._destination(claimed[0].webhook)
        except CipherError as error:
            return "unknown", NotTaken(None, str(error))
        if destination is None:
            return "unknown", None
        result = await self._sender.send(destination, [each.event for each in claimed])
        return destination.kind.value, result

    async def _destination(self, webhook: str) -> Destination | None:
        known = self._settings.by_id.get(webhook)
        if known is not None:
            return known
        opened = await self._database.once(
            partial(webhooks.opened, cipher=self._cipher, webhook=webhook)
        )
        if opened is None:
            return None
        return Destination(Kind(opened.kind), opened.target, opened.secrets)

    async def _record(
        self, owner: str, claimed: Sequence[ClaimedDelivery], kind: str, result: SendResult
    ) -> None:
        ids, first = [each.id for each in claimed], claimed[0]
        match result:
            case Taken(status=status):
                await self._stored(partial(deliveries.record_taken, ids=ids, http_status=status))
                self._on_result(kind, "taken")
                log.info("event_delivered", webhook=first.webhook, events=len(ids), kind=kind)
            case NotTaken(status=status, reason=reason, retry_after_seconds=asked):
                wait = wait_seconds(first.tries, asked)
                is_given_up = await self._stored(
                    partial(
                        deliveries.record_failed,
                        ids=ids,
                        owner=owner,
                        http_status=status,
                        error=reason,
                        wait_seconds=wait,
                    )
                )
                self._on_result(kind, "given_up" if is_given_up else "failed")
                level = log.error if is_given_up else log.warning
                level(
                    "event_not_delivered",
                    webhook=first.webhook,
                    event_id=first.event.name,
                    tries=first.tries,
                    reason=reason,
                    is_given_up=is_given_up,
                )
            case _:
                assert_never(result)

    async def _stored(self, work: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Tried again while the lease lasts: what is taken and not recorded is sent again. Raises
        `StorageError`."""
        for pause in RECORD_AGAIN_SECONDS:
            try:
                return await self._database.once(work)
            except StorageError:
                await self._clock.sleep(pause)
        return await self._database.once(work)

    async def _keep_house(self) -> None:
        """Affirms the destinations of the settings, and deletes what is old."""
        rows = self._settings.rows()
        if rows:
            await self._database.once(partial(webhooks.affirm, rows=rows))
        await self._database.single(partial(deliveries.give_up_old, limit=BATCH))
        await self._database.single(
            partial(outbox.trim, older_than_seconds=KEPT_SECONDS, limit=BATCH * 10)
        )
        await self._database.single(webhooks.forget_unaffirmed)


def wait_seconds(tries: int, asked_seconds: float | None) -> float:
    """How long to wait after so many tries; longer if the receiver asked for that."""
    step = BACK_OFF_SECONDS[min(tries, len(BACK_OFF_SECONDS)) - 1]
    wait = step * random.uniform(0.8, 1.2)  # noqa: S311
    return max(wait, min(asked_seconds or 0.0, LONGEST_ASKED_SECONDS))
