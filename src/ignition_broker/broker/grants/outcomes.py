"""Records what came of each refresh, with its audit event, in one statement.

Ignition's answer may hold the only good refresh token, so it is not thrown away while the process
lives: every record is tried until Postgres has taken it.
"""

from __future__ import annotations

from typing import assert_never

import structlog

from ignition_broker.broker.errors import BrokerError, ProviderFault, ProviderUnavailable
from ignition_broker.broker.grants.answer_store import AnswerStore, refresh_event
from ignition_broker.broker.grants.read_repair import ReadRepair
from ignition_broker.broker.grants.refresh_policy import (
    OPERATOR_PAUSE_SECONDS,
    RefreshPolicy,
    back_off_seconds,
)
from ignition_broker.broker.grants.refresh_results import (
    ReadAgain,
    RefreshResult,
    RetryNow,
)
from ignition_broker.broker.grants.revocations import Revocations
from ignition_broker.broker.grants.storage_retries import PersistentWriter
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
from ignition_broker.cipher import Cipher
from ignition_broker.clock import Clock
from ignition_broker.model import Actor, Lease
from ignition_broker.storage import (
    leases,
    refresh_failures,
    renewability,
)
from ignition_broker.storage.database import Database

log = structlog.get_logger(__name__)


class OutcomeRecorder:
    """Writes the grant's row. An outage of Postgres raises nothing here: it is waited out."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        revocations: Revocations,
        clock: Clock,
        policy: RefreshPolicy,
        repair: ReadRepair,
    ) -> None:
        self._answers = AnswerStore(database, cipher, revocations, clock, policy, repair)
        self._writer = PersistentWriter(database, clock)
        self._clock = clock
        self._repair = repair

    async def record(self, lease: Lease, outcome: Outcome, actor: Actor) -> RefreshResult:
        """Stores what came of using the lease's refresh token; returns what callers are to get.

        ``actor``: who asked for the refresh, for the audit trail.
        """
        match outcome:
            case Renewed():
                return await self._answers.store_renewed(lease, outcome, actor)
            case Rotated():
                return await self._answers.store_rotated(lease, outcome, actor)
            case Refused():
                return await self._refused(lease, outcome, actor)
            case Misconfigured():
                error = f"{outcome.error}: {outcome.description}".rstrip(": ")
                text = f"Ignition rejects this broker's client ({outcome.error})"
                pause = OPERATOR_PAUSE_SECONDS
                await self._not_used(lease, "misconfigured", error, pause, actor)
                return ProviderFault(f"{text}; an operator has to mend it.", tenant=lease.tenant)
            case Rejected():
                error = f"{outcome.error or 'no code'}: {outcome.description}".rstrip(": ")
                await self._not_used(lease, "rejected", error, OPERATOR_PAUSE_SECONDS, actor)
                return ProviderFault(_explain_rejection(outcome), tenant=lease.tenant)
            case NotSent():
                wait = await self._not_used(lease, "not_sent", outcome.reason, None, actor)
                return _unavailable(lease, outcome.reason, wait)
            case Withdrawn():
                await self._writer.write(lambda c: leases.give_back(c, lease))
                return _unavailable(lease, "The lease came too late", 0.0)
            case Throttled():
                text = f"Ignition's token endpoint answers status {outcome.status}"
                asked = outcome.retry_after_seconds
                wait = await self._not_used(lease, "throttled", text, asked, actor)
                return _unavailable(lease, text, wait)
            case AnswerLost() | NoToken():
                return await self._lost(lease, outcome, actor)
            case _:
                assert_never(outcome)

    async def record_unrenewable(self, lease: Lease) -> None:
        """The lease's refresh token is empty, and nothing in the row says so: a replica of an
        earlier release stored it. Ignition was not asked."""
        await self._writer.write(lambda c: renewability.note_empty(c, lease))
        log.info("grant_found_unrenewable", tenant=lease.tenant, version=lease.version)

    async def _refused(self, lease: Lease, refused: Refused, actor: Actor) -> ReadAgain:
        """Ends the grant, unless its row is at another version: then somebody else renewed it."""
        reason = refused.description or "invalid_grant"
        if lease.was_uncertain:
            reason += "; the answer to an earlier refresh had been lost"
        event = refresh_event("refused", lease, actor, reason=reason)
        if await self._repair.outlives_refusal(lease):
            log.warning("refusal_overtaken", tenant=lease.tenant, version=lease.version)
            return ReadAgain()
        if await self._writer.write(
            lambda c: refresh_failures.record_refusal(c, lease, reason, event)
        ):
            log.warning("grant_refused", tenant=lease.tenant, version=lease.version, reason=reason)
        return ReadAgain()

    async def _not_used(
        self, lease: Lease, outcome: str, error: str, retry_after: float | None, actor: Actor
    ) -> float:
        """Ignition did not use the refresh token, which is as good as before.

        Returns for how many seconds the grant is left alone: ``retry_after`` at least.
        """
        wait = max(retry_after or 0.0, back_off_seconds(lease.failures))
        event = refresh_event(outcome, lease, actor, error=error)
        await self._writer.write(
            lambda c: refresh_failures.record_not_used(c, lease, error, wait, event)
        )
        level = log.error if outcome in ("misconfigured", "rejected") else log.warning
        level("refresh_failed", tenant=lease.tenant, outcome=outcome, error=error)
        return wait

    async def _lost(
        self, lease: Lease, outcome: AnswerLost | NoToken, actor: Actor
    ) -> RetryNow | BrokerError:
        """The refresh token may be spent. It is tried once more at once only where no live access
        token could be revoked by that."""
        is_live = lease.access_dies_at > self._clock.monotonic()
        retries = not is_live and not lease.was_uncertain and isinstance(outcome, AnswerLost)
        wait = 0.0 if retries else back_off_seconds(lease.failures)
        reason = outcome.reason
        event = refresh_event(
            "answer_lost", lease, actor, reason=reason, access_token_is_live=is_live
        )
        await self._writer.write(
            lambda c: refresh_failures.record_answer_lost(c, lease, reason, wait, event)
        )
        log.warning("refresh_answer_lost", tenant=lease.tenant, reason=reason, is_live=is_live)
        if isinstance(outcome, NoToken):
            return ProviderFault(f"Ignition's answer: {reason}.", tenant=lease.tenant)
        failure = _unavailable(lease, reason, wait)
        return RetryNow(failure) if retries else failure


def _explain_rejection(rejected: Rejected) -> str:
    """For callers: blames neither the grant nor the client."""
    if rejected.error is None:
        return (
            f"Ignition's token endpoint answered this request with status {rejected.status} and "
            "no OAuth error; an operator has to look at IGNITION_TOKEN_URL, and at what stands "
            "before it."
        )
    return (
        f"Ignition refused this grant's request ({rejected.error}). If that code means that the "
        "grant has ended, an operator has to name it in IGNITION_REFUSAL_CODES."
    )


def _unavailable(lease: Lease, reason: str, wait: float) -> ProviderUnavailable:
    return ProviderUnavailable(f"{reason}.", retry_after_seconds=wait, tenant=lease.tenant)
