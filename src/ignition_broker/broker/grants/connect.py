"""Connecting a tenant: an admin or a one-time link begins it, the callback ends it."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

import structlog

from ignition_broker.broker.errors import UnknownTenant
from ignition_broker.broker.grants.connect_links import LinkForged, LinkSpent, link_hash
from ignition_broker.broker.grants.connect_outcomes import (
    ConnectAttempt,
    Connected,
    ConnectFailed,
    Objection,
    StillConnecting,
    objection_to,
)
from ignition_broker.broker.grants.provider import Provider
from ignition_broker.broker.grants.read_repair import ReadRepair
from ignition_broker.broker.grants.refresh_policy import RefreshPolicy
from ignition_broker.broker.grants.remembered_answers import RememberedAnswer
from ignition_broker.broker.grants.repeated_callbacks import second_visit
from ignition_broker.broker.grants.revocations import Revocations
from ignition_broker.broker.grants.sealing import LIVES_FOR_NOTHING, log_flaws, seal
from ignition_broker.broker.grants.single_flight import SingleFlight
from ignition_broker.broker.grants.token_outcomes import Refused, Renewed, Rotated
from ignition_broker.cipher import Cipher
from ignition_broker.clock import Clock
from ignition_broker.deadlines import is_done_within
from ignition_broker.model import Actor, AuditEvent, GrantStatus, is_known_end
from ignition_broker.oauth.callback import (
    EXPECT_NO_ISSUER,
    CallbackError,
    judge_callback,
    state_of,
)
from ignition_broker.oauth.pkce import new_code_verifier
from ignition_broker.oauth.tokens import (
    AccessToken,
    AuthorizationCode,
    CodeVerifier,
    RefreshToken,
    TokenAnswer,
)
from ignition_broker.storage import (
    audit,
    authorizations,
    callbacks,
    connect_links,
    grants,
    new_tokens,
    tenants,
)
from ignition_broker.storage.callbacks import Judgement
from ignition_broker.storage.connect_links import SpentLink
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageUnavailable
from ignition_broker.storage.makers import Maker, Standing
from ignition_broker.storage.sealed_tokens import Stored

log = structlog.get_logger(__name__)

AUTHORIZATION_LIFETIME_SECONDS = 600


class Connector:
    """Begins and ends dances."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        provider: Provider,
        policy: RefreshPolicy,
        clock: Clock,
        revocations: Revocations,
        repair: ReadRepair,
        *,
        requested_scope: str,
        expected_issuer: str | None,
        standing: Standing,
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._provider = provider
        self._policy = policy
        self._clock = clock
        self._revocations = revocations
        self._repair = repair
        self._requested_scope = requested_scope
        self._expected_issuer = expected_issuer or EXPECT_NO_ISSUER
        self._standing = standing
        self.exchanges: SingleFlight[Connected] = SingleFlight()

    async def begin(self, tenant: str, *, browser: str, actor: Actor, maker: Maker) -> str:
        """The provider's URL for this tenant and this browser; makes the tenant if it is new.

        What is begun here connects only while ``maker`` stands.
        """
        async with self._database.begin() as connection:
            return await self._begun(connection, tenant, browser, actor, maker)

    async def _begun(
        self,
        connection: Connection,
        tenant: str,
        browser: str,
        actor: Actor,
        maker: Maker,
        link: SpentLink | None = None,
    ) -> str:
        state = secrets.token_urlsafe(32)
        verifier = new_code_verifier()
        await tenants.ensure(connection, tenant)
        await authorizations.begin(
            connection,
            self._cipher,
            state_hash=_hash(state),
            tenant=tenant,
            code_verifier=verifier,
            browser_hash=_hash(browser),
            lifetime_seconds=AUTHORIZATION_LIFETIME_SECONDS,
            actor=actor.name,
            maker=maker,
            link=link,
        )
        detail: dict[str, object] = {} if link is None else {"link": link.id}
        event = AuditEvent("connect", "begun", actor.name, tenant, actor.request_id, detail)
        await audit.append(connection, event)
        return self._provider.authorization_url(state=state, verifier=verifier)

    async def finish(
        self, query: Sequence[tuple[str, str]], *, browser: str | None, request_id: str | None
    ) -> Connected:
        """Exchanges the code and stores the grant; raises `ConnectFailed`, nothing stored.

        Raises `StillConnecting` after the provider's timeout: the exchange goes on, and what comes
        of it is stored. A callback that was here before is answered by what came of it, and no code
        is sent again.
        """
        state = state_of(query)
        if not state or not browser:
            raise ConnectFailed(
                "This sign-in was not begun here",
                "The address lacks its state, or this browser did not begin the sign-in.",
            )
        state_hash, browser_hash = _hash(state), _hash(browser)
        async with self._database.begin() as connection:
            authorization = await authorizations.take(
                connection, self._cipher, state_hash=state_hash, browser_hash=browser_hash
            )
            judgement = await callbacks.judge(connection, state_hash, self._standing)
        if authorization is None:
            return await second_visit(
                self._database,
                self._clock,
                state_hash,
                browser_hash,
                patience_seconds=self._provider.patience_seconds,
            )
        attempt = ConnectAttempt(
            state_hash, authorization.tenant, Actor(authorization.actor, request_id)
        )
        if not authorization.is_live:
            raise await self._failed(
                attempt, "This sign-in took too long", "It has to end within ten minutes."
            )
        await self._check(attempt, judgement)
        verdict = judge_callback(query, expected_issuer=self._expected_issuer)
        if isinstance(verdict, CallbackError):
            raise await self._failed(
                attempt,
                "Ignition did not grant access",
                verdict.description or "No reason was given.",
                verdict.error,
            )
        work = self._exchange(attempt, verdict, authorization.code_verifier)
        exchange = self.exchanges.start(attempt.tenant, work).task
        if not await is_done_within(exchange, self._provider.timeout_seconds):
            log.warning("exchange_late", tenant=attempt.tenant)
            exchange.add_done_callback(_report_fault)
            raise StillConnecting(attempt.tenant)
        return exchange.result()

    async def _exchange(
        self, attempt: ConnectAttempt, code: AuthorizationCode, verifier: CodeVerifier
    ) -> Connected:
        outcome = await self._provider.exchange_code(code, verifier)
        reason = None
        if isinstance(outcome, Rotated):
            reason = outcome.answer.reason
            outcome = _without_access_token(outcome)
        if not isinstance(outcome, Renewed):
            kind = "The code was refused" if isinstance(outcome, Refused) else "Ignition failed"
            raise await self._failed(attempt, kind, _explain(outcome), type(outcome).__name__)
        return await self._store(attempt, outcome, reason)

    async def _store(
        self, attempt: ConnectAttempt, renewed: Renewed, reason: str | None
    ) -> Connected:
        """``reason``: why the answer's access token can't be handed out; None where it can."""
        answer = renewed.answer
        if reason is None and answer.lifetime_seconds <= 0:
            reason = LIVES_FOR_NOTHING
        scope = answer.scope if answer.scope is not None else self._requested_scope
        refresh_token = answer.refresh_token or RefreshToken("")
        sealed = seal(self._cipher, attempt.tenant, renewed, refresh_token, scope)
        detail: dict[str, object] = {
            "scope": scope,
            "renewable": sealed.has_refresh_token,
            **log_flaws(attempt.tenant, answer.flaws),
        }
        if reason is not None:
            detail["warning"] = reason
        event = AuditEvent(
            "connect",
            "done",
            attempt.actor.name,
            attempt.tenant,
            attempt.actor.request_id,
            detail,
        )
        schedule = self._policy.schedule(sealed.lifetime_seconds, sealed.refresh_lifetime_seconds)

        # Also of a try whose commit was not answered: the next one then finds it committed.
        rows: list[Stored] = []

        async def store() -> datetime | Objection:
            """When the access token ends, or why nothing was stored."""
            async with self._database.begin() as connection:
                await tenants.lock(connection, attempt.tenant)
                judgement = await callbacks.judge(connection, attempt.state_hash, self._standing)
                if judgement is not None and judgement.expires_at is not None:
                    return judgement.expires_at
                objection = objection_to(judgement)
                if objection is not None:
                    return objection
                await tenants.end_begun(connection, attempt.tenant)
                age = self._clock.monotonic() - renewed.requested_at
                stored = await new_tokens.store_connected(
                    connection, attempt.tenant, sealed, schedule, event, age_seconds=age
                )
                rows.append(stored)
                await callbacks.note_connected(
                    connection,
                    attempt.state_hash,
                    scope=scope,
                    expires_at=stored.expires_at,
                    warning=reason,
                )
                return stored.expires_at

        outcome = await self._until_stored(store)
        if not isinstance(outcome, datetime):
            await self._give_up(attempt, answer.refresh_token or answer.access_token)
            raise await self._failed(attempt, outcome.title, outcome.detail)
        if rows:
            answered = RememberedAnswer(rows[-1], sealed, schedule, renewed.requested_at)
            self._repair.note_stored(attempt.tenant, answered)
        if reason is None:
            log.info("tenant_connected", tenant=attempt.tenant, renewable=sealed.has_refresh_token)
        else:
            log.error("tenant_connected_without_token", tenant=attempt.tenant, reason=reason)
        return Connected(
            attempt.tenant,
            scope,
            outcome,
            reason,
            is_renewable=sealed.has_refresh_token,
            has_known_end=is_known_end(sealed.lifetime_seconds),
        )

    async def _until_stored(
        self, store: Callable[[], Awaitable[datetime | Objection]]
    ) -> datetime | Objection:
        """A code is good once, so that nobody can fetch these tokens again. Where a store was
        committed and nobody heard of it, the next one says so."""
        pause = 0.02
        while True:
            try:
                return await store()
            except StorageUnavailable as error:
                log.warning("connect_store_failed", reason=str(error))
                await self._clock.sleep(pause)
                pause = min(pause * 2, 0.5)

    async def _give_up(self, attempt: ConnectAttempt, token: RefreshToken | AccessToken) -> None:
        """Revokes at Ignition what was exchanged and may not be stored.

        Not where the tenant has a grant: at some providers that would end the grant too.
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

    async def _check(self, attempt: ConnectAttempt, judgement: Judgement | None) -> None:
        """Raises `ConnectFailed` where what began the dance has ended, or the tenant moved on."""
        objection = objection_to(judgement)
        if objection is not None:
            raise await self._failed(attempt, objection.title, objection.detail)

    async def _failed(
        self, attempt: ConnectAttempt, title: str, detail: str, error: str | None = None
    ) -> ConnectFailed:
        async with self._database.begin() as connection:
            await callbacks.forget(connection, attempt.state_hash)
            await audit.append(
                connection,
                AuditEvent(
                    "connect",
                    "failed",
                    attempt.actor.name,
                    attempt.tenant,
                    attempt.actor.request_id,
                    {"reason": title, "error": error},
                ),
            )
        log.warning("connect_failed", tenant=attempt.tenant, reason=title, error=error)
        return ConnectFailed(title, detail, attempt.tenant, error)

    async def link(self, token: str) -> connect_links.ConnectLink:
        """A live link, not spent by being looked at; raises `LinkForged` or `LinkSpent`."""
        found = await self._database.once(
            lambda c: connect_links.read(c, link_hash(token), self._standing)
        )
        if found is None:
            raise LinkForged("This link was never made here.")
        if not found.is_live:
            raise LinkSpent(_LINK_OVER, tenant=found.tenant)
        return found

    async def follow_link(self, token: str, *, browser: str, request_id: str | None) -> str:
        """Spends the link and begins; raises `LinkForged` or `LinkSpent`."""
        await self.link(token)
        async with self._database.begin() as connection:
            spent = await connect_links.spend(connection, link_hash(token), self._standing)
            if spent is None:
                raise LinkSpent(_LINK_OVER)
            actor = Actor(f"link of {spent.created_by}", request_id)
            return await self._begun(connection, spent.tenant, browser, actor, spent.maker, spent)


async def disconnect(
    database: Database, cipher: Cipher, revocations: Revocations, tenant: str, actor: Actor
) -> bool | None:
    """Forgets the tokens everywhere, then revokes them at Ignition where it can.

    Returns whether Ignition confirmed the revocation, which is tried again where it was not
    answered; None where it was not asked. Raises `UnknownTenant`.
    """
    event = AuditEvent("disconnect", "done", actor.name, tenant, actor.request_id)
    async with database.begin() as connection:
        if await tenants.end_begun(connection, tenant) is None:
            raise UnknownTenant(tenant)
        await connect_links.revoke_all(connection, tenant)
        token = await grants.disconnect(connection, cipher, tenant, event)
        pending = token and await revocations.add(connection, tenant, token, actor)
    return await revocations.attempt(pending) if pending else None


_LINK_OVER = (
    "This link was used or revoked, has expired, or was made before the tenant was last connected."
)


def _without_access_token(rotated: Rotated) -> Renewed:
    """To be stored as a grant whose access token has ended: it is renewed at once."""
    answer = rotated.answer
    ended = TokenAnswer(AccessToken(""), "Bearer", 0, answer.refresh_token, None, answer.flaws)
    return Renewed(ended, rotated.requested_at)


def _report_fault(exchange: asyncio.Task[Connected]) -> None:
    """Nobody waits any more to see what nobody thought of; how a dance failed is in the trail."""
    error = None if exchange.cancelled() else exchange.exception()
    if error is not None and not isinstance(error, ConnectFailed):
        log.error("exchange_failed", exc_info=error)


def _explain(outcome: object) -> str:
    fields = [getattr(outcome, name, None) for name in ("error", "description", "reason", "status")]
    text = ", ".join(str(field) for field in fields if field)
    return text or "Ignition gave no reason."


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
