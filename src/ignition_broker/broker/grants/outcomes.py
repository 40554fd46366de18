"""What Ignition's answers leave behind: each recorded with its audit event, in one statement.

Ignition's answer is not thrown away while the process lives: every record is tried until Postgres
has taken it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, assert_never

import structlog

from ignition_broker.broker.errors import BrokerError, ProviderFault, ProviderUnavailable
from ignition_broker.broker.grants.read_repair import ReadRepair
from ignition_broker.broker.grants.remembered_answers import RememberedAnswer
from ignition_broker.broker.grants.revocations import Revocations
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
from ignition_broker.cipher import Cipher, CipherError
from ignition_broker.clock import Clock
from ignition_broker.model import Actor, AuditEvent, Grant, IssuedToken, Lease, SealedLease
from ignition_broker.oauth.tokens import (
    ENDLESS_LIFETIME_SECONDS,
    RefreshToken,
    RefreshTokenOnly,
)
from ignition_broker.storage import (
    audit,
    grants,
    leases,
    new_tokens,
    refresh_failures,
    refresh_tokens,
    renewability,
)
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError
from ignition_broker.storage.sealed_tokens import Schedule, SealedTokens, Stored

log = structlog.get_logger(__name__)

LONGEST_BACK_OFF_SECONDS = 15.0
MISCONFIGURED_PAUSE_SECONDS = 30.0
LIVES_FOR_NOTHING = "Ignition's token lives for 0 seconds"


@dataclass(frozen=True, slots=True)
class RefreshPolicy:
    lead_seconds: float
    keepalive_seconds: float

    def schedule(
        self, lifetime_seconds: float, refresh_lifetime_seconds: float | None = None
    ) -> Schedule:
        """Ahead of expiry by the lead, at most half of the lifetime, spread by a tenth; and when
        two thirds of the refresh token's life are over, where its end is known."""
        lead = min(self.lead_seconds, lifetime_seconds / 2) * random.uniform(0.9, 1.0)  # noqa: S311
        keepalive = self.keepalive_seconds * random.uniform(0.9, 1.0)  # noqa: S311
        before_lapse = None
        if refresh_lifetime_seconds is not None:
            before_lapse = refresh_lifetime_seconds * 2 / 3 * random.uniform(0.9, 1.0)  # noqa: S311
        return Schedule(max(0.0, lifetime_seconds - lead), keepalive, before_lapse)


class ReadAgain:
    """The row has moved on: what it says now is what counts."""


@dataclass(frozen=True, slots=True)
class TryAtOnce:
    """The answer was lost, and no live token can be lost by one more try. ``failure``: what to
    say where that try can't be made."""

    failure: BrokerError


@dataclass(frozen=True, slots=True)
class NothingToServe:
    """The answer's refresh token is safe, and there was no access token to hand out with it."""

    failure: BrokerError


Settled = IssuedToken | ReadAgain | TryAtOnce | NothingToServe | BrokerError


class OutcomeRecorder:
    """Writes the rows. Nothing here raises for Postgres being away; it waits."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        revocations: Revocations,
        clock: Clock,
        policy: RefreshPolicy,
        repair: ReadRepair,
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._revocations = revocations
        self._clock = clock
        self._policy = policy
        self._repair = repair

    async def record(self, lease: Lease, outcome: Outcome, actor: Actor) -> Settled:
        """Stores what came of using the lease's refresh token; what the callers are to get."""
        match outcome:
            case Renewed():
                return await self._renewed(lease, outcome, actor)
            case Rotated():
                return await self._rotated(lease, outcome, actor)
            case Refused():
                return await self._refused(lease, outcome, actor)
            case Misconfigured():
                error = f"{outcome.error}: {outcome.description}".rstrip(": ")
                text = f"Ignition rejects this broker's client ({outcome.error})"
                pause = MISCONFIGURED_PAUSE_SECONDS
                await self._not_used(lease, "misconfigured", error, pause, actor)
                return ProviderFault(f"{text}; an operator has to mend it.", tenant=lease.tenant)
            case Rejected():
                error = f"{outcome.error or 'no code'}: {outcome.description}".rstrip(": ")
                pause = MISCONFIGURED_PAUSE_SECONDS
                await self._not_used(lease, "rejected", error, pause, actor)
                return ProviderFault(explain_rejection(outcome), tenant=lease.tenant)
            case NotSent():
                wait = await self._not_used(lease, "not_sent", outcome.reason, None, actor)
                return _unavailable(lease, outcome.reason, wait)
            case Withdrawn():
                await self.given_back(lease)
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

    async def _renewed(
        self, lease: Lease, renewed: Renewed, actor: Actor
    ) -> IssuedToken | ReadAgain | ProviderFault:
        """The token as it was committed."""
        answer = renewed.answer
        refresh_token = answer.refresh_token or lease.refresh_token
        scope = answer.scope if answer.scope is not None else lease.scope
        sealed = seal(self._cipher, lease.tenant, renewed, refresh_token, scope)
        error = None if answer.lifetime_seconds > 0 else LIVES_FOR_NOTHING
        flaws = log_flaws(lease.tenant, answer.flaws)
        event = _event("renewed", lease, actor, rotated=answer.refresh_token is not None, **flaws)
        schedule = self._policy.schedule(
            sealed.lifetime_seconds if error is None else _back_off_seconds(lease.failures),
            sealed.refresh_lifetime_seconds,
        )

        async def store(connection: Connection) -> Stored | None:
            age = self._clock.monotonic() - renewed.requested_at
            return (
                await new_tokens.store_refreshed(
                    connection, lease, sealed, schedule, event, age_seconds=age, error=error
                )
                or await new_tokens.find_stored(connection, lease, sealed)
                or await self._repair.store_above(
                    connection, lease, sealed, schedule, event, age_seconds=age
                )
            )

        stored: Stored | None = await self._until_done(store)
        if stored is None:
            log.warning("refresh_overtaken", tenant=lease.tenant, version=lease.version)
            overtaken = replace(event, outcome="overtaken")
            await self._until_done(lambda c: audit.append(c, overtaken))
            await self._revoke_if_unwanted(lease, renewed.answer.refresh_token, actor)
            return ReadAgain()
        answered = RememberedAnswer(stored, sealed, schedule, renewed.requested_at)
        self._repair.stored(lease.tenant, answered)
        log.info("grant_refreshed", tenant=lease.tenant, version=stored.version)
        if error is not None:
            return ProviderFault(f"{error}.", tenant=lease.tenant)
        return issued_token(lease.tenant, renewed, scope, stored)

    async def _rotated(
        self, lease: Lease, rotated: Rotated, actor: Actor
    ) -> NothingToServe | ReadAgain:
        """The access token in force stays, and may be served to its end."""
        answer = rotated.answer
        sealed = await self._sealed_pair(lease, answer)
        wait = max(MISCONFIGURED_PAUSE_SECONDS, _back_off_seconds(lease.failures))
        event = _event("no_access_token", lease, actor, error=answer.reason, rotated=True)
        event.detail.update(log_flaws(lease.tenant, answer.flaws))

        async def store(connection: Connection) -> bool:
            return await refresh_tokens.store(
                connection, lease, sealed, answer.reason, wait, event
            ) or await refresh_tokens.is_stored(connection, lease, sealed)

        if not await self._until_done(store):
            overtaken = replace(event, outcome="overtaken")
            await self._until_done(lambda c: audit.append(c, overtaken))
            await self._revoke_if_unwanted(lease, answer.refresh_token, actor)
            return ReadAgain()
        log.error("refresh_brought_no_access_token", tenant=lease.tenant, reason=answer.reason)
        text = f"Ignition's answer: {answer.reason}."
        return NothingToServe(ProviderFault(text, tenant=lease.tenant))

    async def _sealed_pair(
        self, lease: Lease, answer: RefreshTokenOnly
    ) -> refresh_tokens.SealedPair:
        asked_at = self._clock.monotonic()
        access_token = None
        try:
            grant: Grant | None = await self._until_done(
                lambda c: grants.read(c, self._cipher, lease.tenant, asked_at=asked_at)
            )
            if grant is not None and grant.issued is not None:
                token = grant.issued.access_token.reveal()
                access_token = self._cipher.encrypt(lease.tenant, "access_token", token)
        except CipherError as error:
            log.warning("grant_unreadable", tenant=lease.tenant, reason=str(error))
        return refresh_tokens.SealedPair(
            self._cipher.encrypt(lease.tenant, "refresh_token", answer.refresh_token.reveal()),
            access_token,
            self._cipher.fingerprint,
            answer.refresh_lifetime_seconds,
        )

    async def _revoke_if_unwanted(
        self, lease: Lease, fresh: RefreshToken | None, actor: Actor
    ) -> None:
        """A disconnect that came while Ignition was asked could revoke the old token alone."""
        if fresh is not None and await self._until_done(
            lambda c: grants.is_disconnected(c, lease.tenant)
        ):
            pending = await self._until_done(
                lambda c: self._revocations.add(c, lease.tenant, fresh, actor)
            )
            if pending is not None:
                await self._revocations.attempt(pending)

    async def _refused(self, lease: Lease, refused: Refused, actor: Actor) -> ReadAgain:
        """Where another version is there, somebody else renewed it, and all is well."""
        reason = refused.description or "invalid_grant"
        if lease.was_uncertain:
            reason += "; the answer to an earlier refresh had been lost"
        event = _event("refused", lease, actor, reason=reason)
        if await self._repair.outlives_refusal(lease):
            log.warning("refusal_overtaken", tenant=lease.tenant, version=lease.version)
            return ReadAgain()
        if await self._until_done(
            lambda c: refresh_failures.record_refusal(c, lease, reason, event)
        ):
            log.warning("grant_refused", tenant=lease.tenant, version=lease.version, reason=reason)
        return ReadAgain()

    async def _not_used(
        self, lease: Lease, outcome: str, error: str, retry_after: float | None, actor: Actor
    ) -> float:
        """For how many seconds the grant is left alone."""
        wait = max(retry_after or 0.0, _back_off_seconds(lease.failures))
        event = _event(outcome, lease, actor, error=error)
        await self._until_done(
            lambda c: refresh_failures.record_not_used(c, lease, error, wait, event)
        )
        level = log.error if outcome in ("misconfigured", "rejected") else log.warning
        level("refresh_failed", tenant=lease.tenant, outcome=outcome, error=error)
        return wait

    async def _lost(
        self, lease: Lease, outcome: AnswerLost | NoToken, actor: Actor
    ) -> TryAtOnce | BrokerError:
        is_live = lease.access_dies_at > self._clock.monotonic()
        tries_at_once = not is_live and not lease.was_uncertain and isinstance(outcome, AnswerLost)
        wait = 0.0 if tries_at_once else _back_off_seconds(lease.failures)
        reason = outcome.reason
        event = _event("answer_lost", lease, actor, reason=reason, access_token_is_live=is_live)
        await self._until_done(
            lambda c: refresh_failures.record_answer_lost(c, lease, reason, wait, event)
        )
        log.warning("refresh_answer_lost", tenant=lease.tenant, reason=reason, is_live=is_live)
        if isinstance(outcome, NoToken):
            return ProviderFault(f"Ignition's answer: {reason}.", tenant=lease.tenant)
        failure = _unavailable(lease, reason, wait)
        return TryAtOnce(failure) if tries_at_once else failure

    async def found_unrenewable(self, lease: Lease) -> None:
        """The row holds an empty refresh token of which nothing was noted: a replica of a release
        before wrote it. Ignition was not asked."""
        await self._until_done(lambda c: renewability.note_empty(c, lease))
        log.info("grant_found_unrenewable", tenant=lease.tenant, version=lease.version)

    async def given_back(self, lease: Lease | SealedLease) -> None:
        """The lease was not made use of."""
        await self._until_done(lambda c: leases.give_back(c, lease))

    async def _until_done(self, work: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        pause = 0.02
        while True:
            try:
                return await self._database.single(work)
            except StorageError as error:
                log.warning("refresh_store_failed", reason=str(error))
                await self._clock.sleep(pause)
                pause = min(pause * 2, 0.5)


def seal(
    cipher: Cipher, tenant: str, renewed: Renewed, refresh_token: RefreshToken, scope: str
) -> SealedTokens:
    """Encrypted for the row."""
    answer = renewed.answer
    is_endless = not answer.lifetime_is_known and not refresh_token.reveal()
    return SealedTokens(
        access_token=cipher.encrypt(tenant, "access_token", answer.access_token.reveal()),
        refresh_token=cipher.encrypt(tenant, "refresh_token", refresh_token.reveal()),
        token_type=answer.token_type,
        scope=scope,
        lifetime_seconds=ENDLESS_LIFETIME_SECONDS if is_endless else answer.lifetime_seconds,
        key_fingerprint=cipher.fingerprint,
        has_refresh_token=bool(refresh_token.reveal()),
        is_rotated=answer.refresh_token is not None,
        refresh_lifetime_seconds=answer.refresh_lifetime_seconds,
    )


def log_flaws(tenant: str, flaws: Sequence[str]) -> dict[str, object]:
    """What an audit event's detail says of them; nothing where there were none."""
    if not flaws:
        return {}
    log.warning("token_answer_flawed", tenant=tenant, flaws=list(flaws))
    return {"flaws": list(flaws)}


def explain_rejection(rejected: Rejected) -> str:
    """For whoever asked: neither the grant nor the client is said to be at fault."""
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


def issued_token(tenant: str, renewed: Renewed, scope: str, stored: Stored) -> IssuedToken:
    """Ignition's answer as it was committed."""
    answer = renewed.answer
    return IssuedToken(
        tenant=tenant,
        access_token=answer.access_token,
        token_type=answer.token_type,
        scope=scope,
        expires_at=stored.expires_at,
        lifetime_seconds=answer.lifetime_seconds,
        dies_at=renewed.requested_at + answer.lifetime_seconds,
        version=stored.version,
    )


def _back_off_seconds(failures: int) -> float:
    """Exponential with full jitter."""
    return random.uniform(0, min(LONGEST_BACK_OFF_SECONDS, 2.0 ** min(failures, 10)))  # noqa: S311


def _unavailable(lease: Lease, reason: str, wait: float) -> ProviderUnavailable:
    return ProviderUnavailable(f"{reason}.", retry_after_seconds=wait, tenant=lease.tenant)


def _event(outcome: str, lease: Lease, actor: Actor, **detail: object) -> AuditEvent:
    return AuditEvent(
        "refresh",
        outcome,
        actor.name,
        lease.tenant,
        actor.request_id,
        {"version": lease.version, "after_lost_answer": lease.was_uncertain, **detail},
    )
