"""Connecting a tenant: an admin or a one-time link begins it, the callback ends it.

The authorization code flow of RFC 6749 section 4.1, with PKCE (RFC 7636).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

import structlog

from ignition_broker.broker.errors import AccountMismatch, UnknownClient
from ignition_broker.broker.grants.code_exchange import CodeExchange
from ignition_broker.broker.grants.connect_failures import record_failure
from ignition_broker.broker.grants.connect_links import LinkForged, LinkSpent, link_hash
from ignition_broker.broker.grants.connect_outcomes import (
    ConnectAttempt,
    Connected,
    ConnectFailed,
    StillConnecting,
    objection_to,
)
from ignition_broker.broker.grants.identification import Identification
from ignition_broker.broker.grants.oauth_clients import OAuthClient, OAuthClients
from ignition_broker.broker.grants.read_repair import ReadRepair
from ignition_broker.broker.grants.refresh_policy import RefreshPolicy
from ignition_broker.broker.grants.repeated_callbacks import second_visit
from ignition_broker.broker.grants.revocations import Revocations
from ignition_broker.broker.grants.single_flight import SingleFlight
from ignition_broker.cipher import Cipher, secret_hash
from ignition_broker.clock import Clock
from ignition_broker.deadlines import is_done_within
from ignition_broker.model import Actor, AuditEvent
from ignition_broker.oauth.callback import (
    EXPECT_NO_ISSUER,
    CallbackError,
    judge_callback,
    state_of,
)
from ignition_broker.oauth.pkce import new_code_verifier
from ignition_broker.storage import audit, authorizations, callbacks, connect_links, tenants
from ignition_broker.storage.callbacks import Judgement
from ignition_broker.storage.connect_links import SpentLink
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.database import Database
from ignition_broker.storage.makers import Maker, Standing

log = structlog.get_logger(__name__)

AUTHORIZATION_LIFETIME_SECONDS = 600


class Connector:
    """Begins sign-ins at Ignition and takes their callbacks.

    ``standing``: tells whether whoever began a sign-in may still connect. ``identification``: finds
    out whose account a new grant is for.
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
        self._clock = clock
        self._standing = standing
        self._exchange = CodeExchange(
            database,
            cipher,
            clients,
            policy,
            clock,
            revocations,
            repair,
            standing=standing,
            identification=identification,
        )
        self.exchanges: SingleFlight[Connected] = SingleFlight()

    async def begin(self, tenant: str, *, browser: str, actor: Actor, maker: Maker) -> str:
        """The URL at Ignition for this tenant; makes the tenant if it is new.

        ``browser``: the secret of the browser that alone may bring the callback. What is begun
        here can connect only while ``maker`` is valid.
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
        provider = self._clients.of(tenant).provider
        state = secrets.token_urlsafe(32)
        verifier = new_code_verifier()
        await tenants.ensure(connection, tenant)
        await authorizations.begin(
            connection,
            self._cipher,
            state_hash=secret_hash(state),
            tenant=tenant,
            code_verifier=verifier,
            browser_hash=secret_hash(browser),
            lifetime_seconds=AUTHORIZATION_LIFETIME_SECONDS,
            actor=actor.name,
            maker=maker,
            link=link,
        )
        detail: dict[str, object] = {} if link is None else {"link": link.id}
        event = AuditEvent("connect", "begun", actor.name, tenant, actor.request_id, detail)
        await audit.append(connection, event)
        return provider.authorization_url(state=state, verifier=verifier)

    async def finish(
        self, query: Sequence[tuple[str, str]], *, browser: str | None, request_id: str | None
    ) -> Connected:
        """Takes a callback: exchanges its code and stores the grant.

        A callback that came before is answered with what came of it; its code is not sent again.
        Raises `ConnectFailed` if nothing was stored, `AccountMismatch` if the account is another
        one than before, or `StillConnecting` after the provider's timeout: the exchange then goes
        on, and what comes of it is stored.
        """
        state = state_of(query)
        if not state or not browser:
            raise ConnectFailed(
                "This sign-in was not begun here",
                "The address lacks its state, or this browser did not begin the sign-in.",
            )
        state_hash, browser_hash = secret_hash(state), secret_hash(browser)
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
                patience_seconds=self._clients.patience_seconds,
            )
        actor = Actor(authorization.actor, request_id)
        attempt = ConnectAttempt(state_hash, authorization.tenant, actor)
        if not authorization.is_live:
            raise await self._failed(
                attempt, "This sign-in took too long", "It has to end within ten minutes."
            )
        await self._check(attempt, judgement)
        client = await self._client_of(attempt)
        expected_issuer = client.expected_issuer or EXPECT_NO_ISSUER
        verdict = judge_callback(query, expected_issuer=expected_issuer)
        if isinstance(verdict, CallbackError):
            raise await self._failed(
                attempt,
                "Ignition did not grant access",
                verdict.description or "No reason was given.",
                verdict.error,
            )
        work = self._exchange.run(attempt, verdict, authorization.code_verifier)
        exchange = self.exchanges.start(attempt.tenant, work).task
        if not await is_done_within(exchange, self._clients.timeout_seconds):
            log.warning("exchange_late", tenant=attempt.tenant)
            exchange.add_done_callback(_log_unforeseen)
            raise StillConnecting(attempt.tenant)
        return exchange.result()

    async def _client_of(self, attempt: ConnectAttempt) -> OAuthClient:
        """Raises `ConnectFailed` if the client's settings were removed since."""
        try:
            return self._clients.of(attempt.tenant)
        except UnknownClient as error:
            raise await self._failed(
                attempt, "This sign-in is no longer possible", error.detail
            ) from None

    async def _check(self, attempt: ConnectAttempt, judgement: Judgement | None) -> None:
        """Raises `ConnectFailed` if whoever began the attempt may no longer connect."""
        objection = objection_to(judgement)
        if objection is not None:
            raise await self._failed(attempt, objection.title, objection.detail)

    async def _failed(
        self, attempt: ConnectAttempt, title: str, detail: str, error: str | None = None
    ) -> ConnectFailed:
        return await record_failure(self._database, attempt, title, detail, error)

    async def link(self, token: str) -> connect_links.ConnectLink:
        """A live one-time link; looking at it does not spend it.

        Raises `LinkForged` or `LinkSpent`.
        """
        found = await self._database.once(
            lambda c: connect_links.read(c, link_hash(token), self._standing)
        )
        if found is None:
            raise LinkForged("This link was never made here.")
        if not found.is_live:
            raise LinkSpent(_LINK_OVER, tenant=found.tenant, return_to=found.return_to)
        return found

    async def follow_link(self, token: str, *, browser: str, request_id: str | None) -> str:
        """Spends the link and begins, as `begin` does; returns the URL at Ignition.

        Raises `LinkForged` or `LinkSpent`.
        """
        link = await self.link(token)
        async with self._database.begin() as connection:
            spent = await connect_links.spend(connection, link_hash(token), self._standing)
            if spent is None:
                raise LinkSpent(_LINK_OVER, return_to=link.return_to)
            actor = Actor(f"link of {spent.created_by}", request_id)
            return await self._begun(connection, spent.tenant, browser, actor, spent.maker, spent)


_LINK_OVER = (
    "This link was used or revoked, has expired, or was made before the tenant was last connected."
)


def _log_unforeseen(exchange: asyncio.Task[Connected]) -> None:
    """Nobody waits for it any more. Why an attempt failed is in the audit trail."""
    error = None if exchange.cancelled() else exchange.exception()
    if error is not None and not isinstance(error, ConnectFailed | AccountMismatch):
        log.error("exchange_failed", exc_info=error)
