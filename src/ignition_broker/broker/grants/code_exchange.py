"""The code exchange: an authorization code becomes a grant (RFC 6749 section 4.1.3).

A code is good once, so nobody can fetch its tokens again: they are stored however long it takes.
"""

from __future__ import annotations

from datetime import datetime

import structlog

from ignition_broker.broker.grants.connect_failures import record_failure
from ignition_broker.broker.grants.connect_outcomes import (
    ConnectAttempt,
    Connected,
    Objection,
    objection_to,
)
from ignition_broker.broker.grants.identification import ASK_SECONDS, Identification
from ignition_broker.broker.grants.oauth_clients import OAuthClients
from ignition_broker.broker.grants.read_repair import ReadRepair
from ignition_broker.broker.grants.refresh_policy import RefreshPolicy
from ignition_broker.broker.grants.remembered_answers import RememberedAnswer
from ignition_broker.broker.grants.revocations import Revocations
from ignition_broker.broker.grants.sealing import LIVES_FOR_NOTHING, log_flaws, seal
from ignition_broker.broker.grants.storage_retries import until_stored
from ignition_broker.broker.grants.token_outcomes import Refused, Renewed, Rotated
from ignition_broker.cipher import Cipher
from ignition_broker.clock import Clock
from ignition_broker.model import AuditEvent, GrantStatus, is_known_end
from ignition_broker.oauth.tokens import (
    AccessToken,
    AuthorizationCode,
    CodeVerifier,
    RefreshToken,
    TokenAnswer,
)
from ignition_broker.storage import callbacks, held_grants, new_tokens, tenants
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError, StorageUnavailable
from ignition_broker.storage.makers import Standing
from ignition_broker.storage.sealed_tokens import Schedule, SealedTokens, Stored

log = structlog.get_logger(__name__)


class CodeExchange:
    """Exchanges codes at Ignition and stores what comes of it.

    ``standing``: tells whether whoever began an attempt may still connect.
    ``identification``: finds out whose account a new grant is for.
    """

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        clients: OAuthClients,
        policy: RefreshPolicy,
        clock: Clock,
        revocations: Revocations,
        repair: ReadRepair,
        *,
        standing: Standing,
        identification: Identification,
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._clients = clients
        self._policy = policy
        self._clock = clock
        self._revocations = revocations
        self._repair = repair
        self._standing = standing
        self._identification = identification

    async def run(
        self, attempt: ConnectAttempt, code: AuthorizationCode, verifier: CodeVerifier
    ) -> Connected:
        """Exchanges the code and stores the grant.

        Raises `ConnectFailed` if Ignition gave no token, or the attempt may no longer connect;
        `AccountMismatch` if its account is another one than before.
        """
        provider = self._clients.of(attempt.tenant).provider
        outcome = await provider.exchange_code(code, verifier)
        flaw = None
        if isinstance(outcome, Rotated):
            flaw = outcome.answer.reason
            outcome = _without_access_token(outcome)
        if not isinstance(outcome, Renewed):
            title = "The code was refused" if isinstance(outcome, Refused) else "Ignition failed"
            kind = type(outcome).__name__
            raise await record_failure(self._database, attempt, title, _explain(outcome), kind)
        return await self._store(attempt, outcome, flaw)

    async def _store(
        self, attempt: ConnectAttempt, renewed: Renewed, flaw: str | None
    ) -> Connected:
        """``flaw``: why the answer's access token can't be handed out; None if it can."""
        answer = renewed.answer
        if flaw is None and answer.lifetime_seconds <= 0:
            flaw = LIVES_FOR_NOTHING
        scope = answer.scope if answer.scope is not None else self._requested_scope(attempt)
        refresh_token = answer.refresh_token or RefreshToken("")
        sealed = seal(self._cipher, attempt.tenant, renewed, refresh_token, scope)
        schedule = self._policy.schedule(sealed.lifetime_seconds, sealed.refresh_lifetime_seconds)
        detail: dict[str, object] = {
            "scope": scope,
            "renewable": sealed.has_refresh_token,
            **log_flaws(attempt.tenant, answer.flaws),
            **({} if flaw is None else {"warning": flaw}),
        }
        actor = attempt.actor
        event = AuditEvent("connect", "done", actor.name, attempt.tenant, actor.request_id, detail)

        # Filled even where the commit was not answered: the next try then finds it committed.
        rows: list[Stored] = []

        async def store() -> datetime | Objection | None:
            return await self._store_once(
                attempt, sealed, schedule, event, renewed.requested_at, flaw, rows
            )

        def failed(error: StorageError) -> None:
            log.warning("connect_store_failed", reason=str(error))

        expires_at = await until_stored(
            store, self._clock, on_failure=failed, retried=StorageUnavailable
        )
        if expires_at is None:
            return await self._identification.settle(attempt, answer.access_token)
        if isinstance(expires_at, Objection):
            await self._revoke_unstored(attempt, answer.refresh_token or answer.access_token)
            raise await record_failure(self._database, attempt, expires_at.title, expires_at.detail)
        if flaw is None:
            log.info("tenant_connected", tenant=attempt.tenant, renewable=sealed.has_refresh_token)
        else:
            log.error("tenant_connected_without_token", tenant=attempt.tenant, reason=flaw)
        account = None
        if rows:
            answered = RememberedAnswer(rows[-1], sealed, schedule, renewed.requested_at)
            self._repair.note_stored(attempt.tenant, answered)
            account = await self._identification.identify(attempt, rows[-1], answer.access_token)
        return Connected(
            attempt.tenant,
            scope,
            expires_at,
            flaw,
            is_renewable=sealed.has_refresh_token,
            has_known_end=is_known_end(sealed.lifetime_seconds),
            account=account,
        )

    def _requested_scope(self, attempt: ConnectAttempt) -> str:
        return self._clients.of(attempt.tenant).requested_scope

    async def _store_once(
        self,
        attempt: ConnectAttempt,
        sealed: SealedTokens,
        schedule: Schedule,
        event: AuditEvent,
        requested_at: float,
        flaw: str | None,
        rows: list[Stored],
    ) -> datetime | Objection | None:
        """When the access token expires, or why nothing was stored. ``rows`` gets what was.

        None: the tokens are held until their account is known."""
        async with self._database.begin() as connection:
            await tenants.lock(connection, attempt.tenant)
            judgement = await callbacks.judge(connection, attempt.state_hash, self._standing)
            if judgement is not None and judgement.expires_at is not None:
                return judgement.expires_at
            objection = objection_to(judgement)
            if objection is not None:
                return objection
            age = self._clock.monotonic() - requested_at
            if await self._identification.must_hold(connection, attempt.tenant):
                await held_grants.hold(
                    connection,
                    attempt.tenant,
                    sealed,
                    state_hash=attempt.state_hash,
                    actor=attempt.actor,
                    warning=flaw,
                    age_seconds=age,
                    lease_seconds=ASK_SECONDS,
                )
                return None
            await tenants.end_begun(connection, attempt.tenant)
            await held_grants.drop(connection, attempt.tenant)
            stored = await new_tokens.store_connected(
                connection, attempt.tenant, sealed, schedule, event, age_seconds=age
            )
            rows.append(stored)
            await callbacks.note_connected(
                connection,
                attempt.state_hash,
                scope=sealed.scope,
                expires_at=stored.expires_at,
                warning=flaw,
            )
            return stored.expires_at

    async def _revoke_unstored(
        self, attempt: ConnectAttempt, token: RefreshToken | AccessToken
    ) -> None:
        """Revokes what was exchanged and may not be stored.

        Not if the tenant has a grant: at some providers that would end the grant too.
        """
        tenant, actor = attempt.tenant, attempt.actor
        summary = await self._database.once(lambda c: tenants.read(c, tenant))
        if summary is None or summary.status is not GrantStatus.DISCONNECTED:
            return
        pending = await self._database.single(
            lambda c: self._revocations.add(c, tenant, token, actor)
        )
        if pending is not None:
            await self._revocations.attempt(pending)


def _without_access_token(rotated: Rotated) -> Renewed:
    """As a grant whose access token has expired: it is renewed at once."""
    answer = rotated.answer
    ended = TokenAnswer(AccessToken(""), "Bearer", 0, answer.refresh_token, None, answer.flaws)
    return Renewed(ended, rotated.requested_at)


def _explain(outcome: object) -> str:
    fields = [getattr(outcome, name, None) for name in ("error", "description", "reason", "status")]
    text = ", ".join(str(field) for field in fields if field)
    return text or "Ignition gave no reason."
