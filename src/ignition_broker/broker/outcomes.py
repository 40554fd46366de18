"""What Ignition's answers leave behind: each recorded with its audit event, in one statement.

Ignition's answer is not thrown away while the process lives: every record is tried until Postgres
has taken it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from ignition_broker.broker.provider import Refused, Renewed
from ignition_broker.cipher import Cipher
from ignition_broker.clock import Clock
from ignition_broker.model import Actor, AuditEvent, IssuedToken, Lease
from ignition_broker.oauth.tokens import RefreshToken
from ignition_broker.storage import grants
from ignition_broker.storage.engine import Database
from ignition_broker.storage.errors import StorageError

log = structlog.get_logger(__name__)

LONGEST_BACK_OFF_SECONDS = 300.0
LIVES_FOR_NOTHING = "Ignition's token lives for 0 seconds"


@dataclass(frozen=True, slots=True)
class RefreshPolicy:
    lead_seconds: float
    keepalive_seconds: float

    def schedule(self, lifetime_seconds: float) -> grants.Schedule:
        """Ahead of expiry by the lead, at most half of the lifetime, spread by a tenth."""
        lead = min(self.lead_seconds, lifetime_seconds / 2) * random.uniform(0.9, 1.0)  # noqa: S311
        keepalive = self.keepalive_seconds * random.uniform(0.9, 1.0)  # noqa: S311
        return grants.Schedule(max(0.0, lifetime_seconds - lead), keepalive)


class Outcomes:
    """Writes the rows. Nothing here raises for Postgres being away; it waits."""

    def __init__(
        self, database: Database, cipher: Cipher, clock: Clock, policy: RefreshPolicy
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._clock = clock
        self._policy = policy

    async def renewed(self, lease: Lease, renewed: Renewed, actor: Actor) -> IssuedToken | None:
        """The token as it was committed; None where the row has moved on without us."""
        answer = renewed.answer
        refresh_token = answer.refresh_token or lease.refresh_token
        scope = answer.scope if answer.scope is not None else lease.scope
        sealed = seal(self._cipher, lease.tenant, renewed, refresh_token, scope)
        error = None if answer.lifetime_seconds > 0 else LIVES_FOR_NOTHING
        event = _event("renewed", lease, actor, rotated=answer.refresh_token is not None)
        schedule = self._policy.schedule(
            sealed.lifetime_seconds if error is None else _back_off_seconds(lease.failures)
        )

        async def store(connection: Any) -> int | None:
            version = await grants.store_refreshed(
                connection, lease, sealed, schedule, event, error=error
            )
            if version is None and await grants.is_stored(connection, lease, sealed):
                return lease.version + 1
            return version

        version: int | None = await self._until_done(store)
        if version is None:
            log.warning("refresh_overtaken", tenant=lease.tenant, version=lease.version)
            return None
        log.info("grant_refreshed", tenant=lease.tenant, version=version)
        return IssuedToken(
            tenant=lease.tenant,
            access_token=answer.access_token,
            token_type=answer.token_type,
            scope=scope,
            expires_at=sealed.expires_at,
            issued_at=sealed.issued_at,
            version=version,
        )

    async def refused(self, lease: Lease, refused: Refused, actor: Actor) -> None:
        reason = refused.description or "invalid_grant"
        event = _event("refused", lease, actor, reason=reason)
        await self._until_done(lambda c: grants.record_refusal(c, lease, reason, event))
        log.warning("grant_refused", tenant=lease.tenant, version=lease.version, reason=reason)

    async def not_used(
        self, lease: Lease, outcome: str, error: str, retry_after: float | None, actor: Actor
    ) -> float:
        """For how many seconds the grant is left alone."""
        wait = max(retry_after or 0.0, _back_off_seconds(lease.failures))
        event = _event(outcome, lease, actor, error=error)
        await self._until_done(lambda c: grants.record_not_used(c, lease, error, wait, event))
        log.warning("refresh_failed", tenant=lease.tenant, outcome=outcome, error=error)
        return wait

    async def lost(
        self, lease: Lease, reason: str, actor: Actor, *, is_live: bool, tries_at_once: bool
    ) -> float:
        """For how many seconds the grant is left alone."""
        wait = 0.0 if tries_at_once else _back_off_seconds(lease.failures)
        event = _event("answer_lost", lease, actor, reason=reason, access_token_is_live=is_live)
        await self._until_done(lambda c: grants.record_answer_lost(c, lease, reason, wait, event))
        log.warning("refresh_answer_lost", tenant=lease.tenant, reason=reason)
        return wait

    async def given_back(self, lease: Lease) -> None:
        """The lease was not made use of."""
        await self._until_done(lambda c: grants.give_back(c, lease))

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
) -> grants.SealedTokens:
    """Encrypted for the row."""
    return grants.SealedTokens(
        access_token=cipher.encrypt(tenant, "access_token", renewed.answer.access_token.reveal()),
        refresh_token=cipher.encrypt(tenant, "refresh_token", refresh_token.reveal()),
        token_type=renewed.answer.token_type,
        scope=scope,
        issued_at=renewed.requested_at,
        expires_at=renewed.requested_at + timedelta(seconds=renewed.answer.lifetime_seconds),
    )


def _back_off_seconds(failures: int) -> float:
    """Exponential with full jitter."""
    return random.uniform(0, min(LONGEST_BACK_OFF_SECONDS, 2.0 ** min(failures, 10)))  # noqa: S311


def _event(outcome: str, lease: Lease, actor: Actor, **detail: object) -> AuditEvent:
    return AuditEvent(
        "refresh",
        outcome,
        actor.name,
        lease.tenant,
        actor.request_id,
        {"version": lease.version, "after_lost_answer": lease.was_uncertain, **detail},
    )
