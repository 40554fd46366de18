"""Revokes tokens at Ignition (RFC 7009): at once, or else for a day until it has answered."""

from __future__ import annotations

import random
from typing import assert_never

import structlog

from ignition_broker.broker.errors import UnknownClient
from ignition_broker.broker.grants.oauth_clients import OAuthClients
from ignition_broker.cipher import Cipher, CipherError
from ignition_broker.clock import Clock
from ignition_broker.model import Actor, AuditEvent
from ignition_broker.oauth.revocation import (
    RevocationRefused,
    RevocationUnanswered,
    RevocationVerdict,
    Revoked,
)
from ignition_broker.oauth.tokens import AccessToken, RefreshToken
from ignition_broker.storage import audit, pending_revocations
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError
from ignition_broker.storage.pending_revocations import PendingRevocation

log = structlog.get_logger(__name__)

TICK_SECONDS = 1.0
LONGEST_BACK_OFF_SECONDS = 900.0
LEASE_MARGIN_SECONDS = 5.0


class Revocations:
    """Whoever adds a revocation tries it once; then any replica takes up what was not answered."""

    def __init__(
        self, database: Database, cipher: Cipher, clients: OAuthClients, clock: Clock
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._clients = clients
        self._clock = clock
        self._lease_seconds = clients.timeout_seconds + LEASE_MARGIN_SECONDS

    async def add(
        self, connection: Connection, tenant: str, token: RefreshToken | AccessToken, actor: Actor
    ) -> PendingRevocation | None:
        """Stores a revocation, for the caller to `attempt` after the commit.

        Call it in the transaction that forgets the token, so that a killed process loses nothing.
        Returns None if Ignition has no revocation endpoint, or the grant's client is no longer
        set.
        """
        if not self._clients.can_revoke(tenant):
            return None
        return await pending_revocations.add(
            connection, self._cipher, tenant, token, actor, lease_seconds=self._lease_seconds
        )

    async def attempt(self, revocation: PendingRevocation) -> bool:
        """Whether Ignition confirmed it. If Postgres is away, that is logged, and the revocation is
        tried again."""
        try:
            verdict = await self._asked(revocation)
            return await self._recorded(revocation, verdict)
        except StorageError as error:
            log.warning("revocation_not_recorded", tenant=revocation.tenant, reason=str(error))
            return False

    async def run(self) -> None:
        """Takes up what is due until it is cancelled."""
        while True:
            try:
                while await self._take_up():
                    pass
            except StorageError as error:
                log.warning("revocations_postponed", reason=str(error))
            except Exception:
                # It must survive unforeseen errors.
                log.exception("revocations_failed")
            await self._clock.sleep(TICK_SECONDS)

    async def _take_up(self) -> bool:
        """Tries one revocation; whether one was due."""
        revocation = await self._database.single(
            lambda c: pending_revocations.claim(
                c, lease_seconds=self._lease_seconds, clients=self._clients.names
            )
        )
        if revocation is None:
            return False
        await self.attempt(revocation)
        return True

    async def _asked(self, revocation: PendingRevocation) -> RevocationVerdict:
        try:
            provider = self._clients.of(revocation.tenant).provider
            token = pending_revocations.opened(self._cipher, revocation)
        except (UnknownClient, CipherError) as error:
            return RevocationUnanswered(str(error))
        return await provider.revoke(token)

    async def _recorded(self, revocation: PendingRevocation, verdict: RevocationVerdict) -> bool:
        match verdict:
            case Revoked():
                await self._settle(revocation, "done")
                log.info("token_revoked", tenant=revocation.tenant, tries=revocation.tries + 1)
                return True
            case RevocationRefused(status=status):
                await self._settle(revocation, "failed", reason=f"status {status}")
                log.error("revocation_refused", tenant=revocation.tenant, status=status)
            case RevocationUnanswered(reason=reason) if revocation.is_last_try:
                await self._settle(revocation, "given_up", reason=reason)
                log.error("revocation_given_up", tenant=revocation.tenant, reason=reason)
            case RevocationUnanswered():
                await self._postpone(revocation, verdict)
            case _:
                assert_never(verdict)
        return False

    async def _settle(self, revocation: PendingRevocation, outcome: str, **detail: object) -> None:
        event = _event(revocation, outcome, {"tries": revocation.tries + 1, **detail})
        await self._database.once(lambda c: pending_revocations.settle(c, revocation, event))

    async def _postpone(
        self, revocation: PendingRevocation, unanswered: RevocationUnanswered
    ) -> None:
        """Only the first failure is recorded in the audit trail; the later ones are logged."""
        back_off = min(LONGEST_BACK_OFF_SECONDS, 2.0 ** min(revocation.tries + 1, 10))
        wait = max(unanswered.retry_after_seconds or 0.0, back_off * random.uniform(0.5, 1))  # noqa: S311
        await self._database.once(lambda c: pending_revocations.postpone(c, revocation, wait=wait))
        log.warning(
            "revocation_postponed",
            tenant=revocation.tenant,
            reason=unanswered.reason,
            tries=revocation.tries + 1,
        )
        if revocation.tries == 0:
            event = _event(
                revocation, "failed", {"reason": unanswered.reason, "is_tried_again": True}
            )
            await self._database.once(lambda c: audit.append(c, event))


def _event(revocation: PendingRevocation, outcome: str, detail: dict[str, object]) -> AuditEvent:
    actor = revocation.actor
    detail = {"token_kind": revocation.kind, **detail}
    return AuditEvent("revoke", outcome, actor.name, revocation.tenant, actor.request_id, detail)
