"""The authorization dance: begun by an admin or a one-time link, ended by the callback."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from ignition_broker.broker.errors import BrokerError, UnknownTenant
from ignition_broker.broker.outcomes import LIVES_FOR_NOTHING, RefreshPolicy, log_flaws, seal
from ignition_broker.broker.provider import Provider, Refused, Renewed, Rotated
from ignition_broker.cipher import Cipher
from ignition_broker.clock import Clock
from ignition_broker.model import Actor, AuditEvent
from ignition_broker.oauth.callback import (
    EXPECT_NO_ISSUER,
    CallbackError,
    judge_callback,
    state_of,
)
from ignition_broker.oauth.pkce import new_code_verifier
from ignition_broker.oauth.tokens import AccessToken, RefreshToken, TokenAnswer
from ignition_broker.storage import audit, authorizations, connect_links, grants, tenants
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.engine import Database

log = structlog.get_logger(__name__)

AUTHORIZATION_LIFETIME_SECONDS = 600
CONNECT_LINK_LIFETIME_SECONDS = 7 * 86400


class LinkForged(BrokerError):
    """No such link was ever made."""


class LinkSpent(BrokerError):
    """It was used, revoked, or has expired."""


@dataclass(frozen=True, slots=True)
class ConnectFailed(Exception):  # reads as what happened, like the page that shows it
    """Why a callback connected nothing, for the page. ``tenant`` where the dance was known."""

    title: str
    detail: str
    tenant: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    tenant: str
    scope: str
    expires_at: datetime
    warning: str | None = None
    """For the page: why no token can be handed out yet."""


class Connector:
    """Begins and ends dances."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        provider: Provider,
        policy: RefreshPolicy,
        clock: Clock,
        *,
        requested_scope: str,
        expected_issuer: str | None,
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._provider = provider
        self._policy = policy
        self._clock = clock
        self._requested_scope = requested_scope
        self._expected_issuer = expected_issuer or EXPECT_NO_ISSUER

    async def begin(self, tenant: str, *, browser: str, actor: Actor) -> str:
        """The provider's URL for this tenant and this browser; makes the tenant if it is new."""
        async with self._database.begin() as connection:
            return await self._begun(connection, tenant, browser, actor)

    async def _begun(
        self,
        connection: Connection,
        tenant: str,
        browser: str,
        actor: Actor,
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
        )
        event = AuditEvent("connect", "begun", actor.name, tenant, actor.request_id)
        await audit.append(connection, event)
        return self._provider.authorization_url(state=state, verifier=verifier)

    async def finish(
        self, query: Sequence[tuple[str, str]], *, browser: str | None, request_id: str | None
    ) -> Connected:
        """Exchanges the code and stores the grant; raises `ConnectFailed`, nothing stored."""
        state = state_of(query)
        if not state or not browser:
            raise ConnectFailed(
                "This sign-in was not begun here",
                "The address lacks its state, or this browser did not begin the sign-in.",
            )
        async with self._database.begin() as connection:
            authorization = await authorizations.take(
                connection, self._cipher, state_hash=_hash(state), browser_hash=_hash(browser)
            )
        if authorization is None:
            raise ConnectFailed(
                "This sign-in was already used, or begun in another browser",
                "Each sign-in works once, in the browser that began it.",
            )
        tenant = authorization.tenant
        actor = Actor(authorization.actor, request_id)
        if not authorization.is_live:
            raise await self._failed(
                tenant, actor, "This sign-in took too long", "It has to end within ten minutes."
            )
        verdict = judge_callback(query, expected_issuer=self._expected_issuer)
        if isinstance(verdict, CallbackError):
            raise await self._failed(
                tenant,
                actor,
                "Ignition did not grant access",
                verdict.description or "No reason was given.",
                verdict.error,
            )
        outcome = await self._provider.exchange_code(verdict, authorization.code_verifier)
        reason = None
        if isinstance(outcome, Rotated):
            reason = outcome.answer.reason
            outcome = _without_access_token(outcome)
        if not isinstance(outcome, Renewed):
            kind = "The code was refused" if isinstance(outcome, Refused) else "Ignition failed"
            raise await self._failed(tenant, actor, kind, _explain(outcome), type(outcome).__name__)
        return await self._store(tenant, outcome, actor, reason)

    async def _store(
        self, tenant: str, renewed: Renewed, actor: Actor, reason: str | None
    ) -> Connected:
        """``reason``: why the answer's access token can't be handed out; None where it can."""
        answer = renewed.answer
        if reason is None and answer.lifetime_seconds <= 0:
            reason = LIVES_FOR_NOTHING
        scope = answer.scope if answer.scope is not None else self._requested_scope
        refresh_token = answer.refresh_token or RefreshToken("")
        sealed = seal(self._cipher, tenant, renewed, refresh_token, scope)
        detail: dict[str, object] = {"scope": scope, **log_flaws(tenant, answer.flaws)}
        if reason is not None:
            detail["warning"] = reason
        event = AuditEvent("connect", "done", actor.name, tenant, actor.request_id, detail)
        schedule = self._policy.schedule(sealed.lifetime_seconds)

        async def store(connection: Connection) -> grants.Stored:
            age = self._clock.monotonic() - renewed.requested_at
            return await grants.store_connected(
                connection, tenant, sealed, schedule, event, age_seconds=age
            )

        # Tried again on a new connection: a repeated upsert of the same tokens does no harm.
        stored = await self._database.once(store)
        if reason is None:
            log.info("tenant_connected", tenant=tenant)
        else:
            log.error("tenant_connected_without_token", tenant=tenant, reason=reason)
        return Connected(tenant, scope, stored.expires_at, reason)

    async def _failed(
        self, tenant: str, actor: Actor, title: str, detail: str, error: str | None = None
    ) -> ConnectFailed:
        async with self._database.begin() as connection:
            await audit.append(
                connection,
                AuditEvent(
                    "connect",
                    "failed",
                    actor.name,
                    tenant,
                    actor.request_id,
                    {"reason": title, "error": error},
                ),
            )
        log.warning("connect_failed", tenant=tenant, reason=title, error=error)
        return ConnectFailed(title, detail, tenant, error)

    async def link(self, token: str) -> connect_links.ConnectLink:
        """A live link, not spent by being looked at; raises `LinkForged` or `LinkSpent`."""
        found = await self._database.once(lambda c: connect_links.read(c, _hash(token)))
        if found is None:
            raise LinkForged("This link was never made here.")
        if not found.is_live:
            raise LinkSpent("This link was used, revoked, or has expired.", tenant=found.tenant)
        return found

    async def follow_link(self, token: str, *, browser: str, request_id: str | None) -> str:
        """Spends the link and begins; raises `LinkForged` or `LinkSpent`."""
        await self.link(token)
        async with self._database.begin() as connection:
            spent = await connect_links.spend(connection, _hash(token))
            if spent is None:
                raise LinkSpent("This link was used, revoked, or has expired.")
            actor = Actor(f"link of {spent.created_by}", request_id)
            return await self._begun(connection, spent.tenant, browser, actor)


async def create_link(database: Database, tenant: str, actor: Actor) -> tuple[str, datetime]:
    """The link's secret part and its end; makes the tenant if it is new."""
    token = secrets.token_urlsafe(32)
    async with database.begin() as connection:
        await tenants.ensure(connection, tenant)
        expires_at = await connect_links.create(
            connection,
            token_hash=_hash(token),
            tenant=tenant,
            lifetime_seconds=CONNECT_LINK_LIFETIME_SECONDS,
            created_by=actor.name,
        )
        await audit.append(
            connection,
            AuditEvent("connect_link_create", "done", actor.name, tenant, actor.request_id),
        )
    return token, expires_at


async def disconnect(
    database: Database, cipher: Cipher, provider: Provider, tenant: str, actor: Actor
) -> bool | None:
    """Forgets the tokens everywhere, then revokes them at Ignition where it can.

    Returns whether Ignition confirmed the revocation; None where it was not asked. Raises
    `UnknownTenant`.
    """
    event = AuditEvent("disconnect", "done", actor.name, tenant, actor.request_id)
    async with database.begin() as connection:
        if await tenants.read(connection, tenant) is None:
            raise UnknownTenant(tenant)
        await connect_links.revoke_all(connection, tenant)
        refresh_token = await grants.disconnect(connection, cipher, tenant, event)
    if refresh_token is None:
        return None
    revoked = await provider.revoke(refresh_token)
    if revoked is not None:
        outcome = "done" if revoked else "failed"
        async with database.begin() as connection:
            await audit.append(
                connection, AuditEvent("revoke", outcome, actor.name, tenant, actor.request_id)
            )
    return revoked


def _without_access_token(rotated: Rotated) -> Renewed:
    """To be stored as a grant whose access token has ended: it is renewed at once."""
    answer = rotated.answer
    ended = TokenAnswer(AccessToken(""), "Bearer", 0, answer.refresh_token, None, answer.flaws)
    return Renewed(ended, rotated.requested_at)


def _explain(outcome: object) -> str:
    fields = [getattr(outcome, name, None) for name in ("error", "description", "reason", "status")]
    text = ", ".join(str(field) for field in fields if field)
    return text or "Ignition gave no reason."


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
