"""Notices that Ignition is away, or rejects the broker's client, and announces it once.

Each replica sees for itself; what all of them saw last is in the row of the condition
(`storage.conditions`), so that it is announced by one, and not ended while another still sees it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from ignition_broker.broker.grants.circuit_breaker import LONGEST_PAUSE_SECONDS, CircuitBreaker
from ignition_broker.broker.grants.refresh_policy import OPERATOR_PAUSE_SECONDS
from ignition_broker.broker.grants.token_outcomes import (
    AnswerLost,
    Misconfigured,
    NoToken,
    NotSent,
    Outcome,
    Refused,
    Rejected,
    Renewed,
    Rotated,
    Throttled,
    Withdrawn,
)
from ignition_broker.clock import Clock
from ignition_broker.storage import conditions
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError

log = structlog.get_logger(__name__)

TICK_SECONDS = 1.0
END_EVERY_SECONDS = 5.0
TRIED_TO_END_SECONDS = 120.0
"""For how long after a success it is tried to end a condition."""
AWAY_QUIET_SECONDS: Final = LONGEST_PAUSE_SECONDS + 1.0
"""A replica that still finds Ignition away asks it again within that time."""
REJECTED_QUIET_SECONDS: Final = 2 * OPERATOR_PAUSE_SECONDS


@dataclass(slots=True)
class _Sightings:
    """Of one condition, on the monotonic clock. ``unsaid``: why it is met, until that is stored."""

    unsaid: str | None = None
    contrary_at: float | None = None
    end_tried_at: float = float("-inf")


class ProviderWatch:
    """Watches the requests of one OAuth client. ``breaker``: the one that they go through."""

    def __init__(
        self, database: Database, breaker: CircuitBreaker, clock: Clock, *, client: str
    ) -> None:
        self._database = database
        self._breaker = breaker
        self._clock = clock
        self._client = client
        self._away = _Sightings()
        self._rejected = _Sightings()
        self._failures_seen = 0

    def observe(self, outcome: Outcome) -> None:
        """Called with what came of each token request."""
        now = self._clock.monotonic()
        match outcome:
            case Renewed() | Rotated() | Refused():
                self._away.contrary_at = now
                self._rejected.contrary_at = now
                self._rejected.unsaid = None
            case Misconfigured(error=error):
                self._away.contrary_at = now
                self._rejected.unsaid = f"Ignition rejects this broker's client ({error})"
            case Rejected() | NoToken():
                self._away.contrary_at = now
            case NotSent() | AnswerLost() | Throttled() | Withdrawn():
                # The breaker counts those that mean that Ignition is away.
                pass

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            try:
                await self.announce()
            except StorageError as error:
                log.warning("conditions_postponed", reason=str(error))
            except Exception:
                # It must survive unforeseen errors.
                log.exception("conditions_failed")
            await self._clock.sleep(TICK_SECONDS)

    async def announce(self) -> None:
        """Stores what was seen since the last call. Raises `StorageError`, and then keeps it."""
        failures = self._breaker.failures
        if self._breaker.is_open and failures != self._failures_seen:
            self._away.unsaid = "too many token requests to Ignition failed"
        await self._store(
            self._away,
            f"provider {self._client}",
            begins="provider.unavailable",
            ends="provider.recovered",
            statuses=("unavailable", "available"),
            quiet_seconds=AWAY_QUIET_SECONDS,
        )
        self._failures_seen = failures
        await self._store(
            self._rejected,
            f"client {self._client}",
            begins="client.misconfigured",
            ends=None,
            statuses=("misconfigured", "ok"),
            quiet_seconds=REJECTED_QUIET_SECONDS,
        )

    async def _store(
        self,
        seen: _Sightings,
        subject: str,
        *,
        begins: str,
        ends: str | None,
        statuses: tuple[str, str],
        quiet_seconds: float,
    ) -> None:
        client = self._client
        reason = seen.unsaid
        if reason is not None:
            is_new = await self._database.single(
                lambda c: conditions.meet(
                    c, subject, event=begins, client=client, status=statuses[0], reason=reason
                )
            )
            seen.unsaid = None
            if is_new:
                log.error("condition_began", subject=subject, reason=reason)
            return
        now, contrary_at = self._clock.monotonic(), seen.contrary_at
        if contrary_at is None or now - seen.end_tried_at < END_EVERY_SECONDS:
            return
        seen.end_tried_at = now
        age = now - contrary_at
        if age > TRIED_TO_END_SECONDS:
            seen.contrary_at = None
        if await self._database.single(
            lambda c: conditions.end(
                c,
                subject,
                event=ends,
                client=client,
                status=statuses[1],
                success_age_seconds=age,
                quiet_seconds=quiet_seconds,
            )
        ):
            log.info("condition_ended", subject=subject)
