"""Stores the tokens that Ignition's answers bring, each with its audit event, in one statement."""

from __future__ import annotations

from dataclasses import replace

import structlog

from ignition_broker.broker.errors import ProviderFault
from ignition_broker.broker.grants.read_repair import ReadRepair
from ignition_broker.broker.grants.refresh_policy import (
    OPERATOR_PAUSE_SECONDS,
    RefreshPolicy,
    back_off_seconds,
)
from ignition_broker.broker.grants.refresh_results import NothingToServe, ReadAgain
from ignition_broker.broker.grants.remembered_answers import RememberedAnswer
from ignition_broker.broker.grants.revocations import Revocations
from ignition_broker.broker.grants.sealing import (
    LIVES_FOR_NOTHING,
    issued_token,
    log_flaws,
    seal,
)
from ignition_broker.broker.grants.storage_retries import PersistentWriter
from ignition_broker.broker.grants.token_outcomes import Renewed, Rotated
from ignition_broker.cipher import Cipher, CipherError
from ignition_broker.clock import Clock
from ignition_broker.model import Actor, AuditEvent, Grant, IssuedToken, Lease
from ignition_broker.oauth.tokens import RefreshToken, RefreshTokenOnly
from ignition_broker.storage import audit, grants, new_tokens, refresh_tokens
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.database import Database
from ignition_broker.storage.sealed_tokens import Stored

log = structlog.get_logger(__name__)


class AnswerStore:
    """Stores answers to refreshes; an outage of Postgres is waited out."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        revocations: Revocations,
        clock: Clock,
        policy: RefreshPolicy,
        repair: ReadRepair,
    ) -> None:
        self._writer = PersistentWriter(database, clock)
        self._cipher = cipher
        self._revocations = revocations
        self._clock = clock
        self._policy = policy
        self._repair = repair

    async def store_renewed(
        self, lease: Lease, renewed: Renewed, actor: Actor
    ) -> IssuedToken | ReadAgain | ProviderFault:
        """The token, once it is committed."""
        answer = renewed.answer
        refresh_token = answer.refresh_token or lease.refresh_token
        scope = answer.scope if answer.scope is not None else lease.scope
        sealed = seal(self._cipher, lease.tenant, renewed, refresh_token, scope)
        error = None if answer.lifetime_seconds > 0 else LIVES_FOR_NOTHING
        flaws = log_flaws(lease.tenant, answer.flaws)
        event = refresh_event(
            "renewed", lease, actor, rotated=answer.refresh_token is not None, **flaws
        )
        schedule = self._policy.schedule(
            sealed.lifetime_seconds if error is None else back_off_seconds(lease.failures),
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

        stored: Stored | None = await self._writer.write(store)
        if stored is None:
            log.warning("refresh_overtaken", tenant=lease.tenant, version=lease.version)
            return await self._overtaken(lease, event, answer.refresh_token, actor)
        answered = RememberedAnswer(stored, sealed, schedule, renewed.requested_at)
        self._repair.note_stored(lease.tenant, answered)
        log.info("grant_refreshed", tenant=lease.tenant, version=stored.version)
        if error is not None:
            return ProviderFault(f"{error}.", tenant=lease.tenant)
        return issued_token(lease.tenant, renewed, scope, stored)

    async def store_rotated(
        self, lease: Lease, rotated: Rotated, actor: Actor
    ) -> NothingToServe | ReadAgain:
        """The access token in force stays, and may be served until it expires."""
        answer = rotated.answer
        sealed = await self._sealed_pair(lease, answer)
        wait = max(OPERATOR_PAUSE_SECONDS, back_off_seconds(lease.failures))
        event = refresh_event("no_access_token", lease, actor, error=answer.reason, rotated=True)
        event.detail.update(log_flaws(lease.tenant, answer.flaws))

        async def store(connection: Connection) -> bool:
            return await refresh_tokens.store(
                connection, lease, sealed, answer.reason, wait, event
            ) or await refresh_tokens.is_stored(connection, lease, sealed)

        if not await self._writer.write(store):
            return await self._overtaken(lease, event, answer.refresh_token, actor)
        log.error("refresh_brought_no_access_token", tenant=lease.tenant, reason=answer.reason)
        text = f"Ignition's answer: {answer.reason}."
        return NothingToServe(ProviderFault(text, tenant=lease.tenant))

    async def _sealed_pair(
        self, lease: Lease, answer: RefreshTokenOnly
    ) -> refresh_tokens.SealedPair:
        """The new refresh token, and the access token in force, both under the newest key."""
        asked_at = self._clock.monotonic()
        access_token = None
        try:
            grant: Grant | None = await self._writer.write(
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

    async def _overtaken(
        self, lease: Lease, event: AuditEvent, fresh: RefreshToken | None, actor: Actor
    ) -> ReadAgain:
        """The row has moved on, and the answer is not stored.

        If a disconnect came while Ignition was asked, it could revoke only the old refresh token:
        the new one is revoked here.
        """
        overtaken = replace(event, outcome="overtaken")
        await self._writer.write(lambda c: audit.append(c, overtaken))
        if fresh is not None and await self._writer.write(
            lambda c: grants.is_disconnected(c, lease.tenant)
        ):
            pending = await self._writer.write(
                lambda c: self._revocations.add(c, lease.tenant, fresh, actor)
            )
            if pending is not None:
                await self._revocations.attempt(pending)
        return ReadAgain()


def refresh_event(outcome: str, lease: Lease, actor: Actor, **detail: object) -> AuditEvent:
    """What the audit trail says of a refresh by this lease that ended in ``outcome``."""
    return AuditEvent(
        "refresh",
        outcome,
        actor.name,
        lease.tenant,
        actor.request_id,
        {"version": lease.version, "after_lost_answer": lease.was_uncertain, **detail},
    )
