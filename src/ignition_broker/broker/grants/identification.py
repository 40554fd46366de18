"""Whose account a new grant is for: asked once, after its tokens are stored.

The tokens of a tenant's first connection become its grant at once, and are asked for their account
then. Those of a reconnect are held beside the grant (`held_grants`) until it is known that they are
for the same account. Whatever goes wrong in asking, no token is lost and the connection stands.

Over 250 lines: every end of the question decides over the same held tokens.
"""

from __future__ import annotations

from typing import Final

import structlog

from ignition_broker.broker.errors import AccountMismatch, BrokerError
from ignition_broker.broker.grants.connect_failures import record_failure
from ignition_broker.broker.grants.connect_outcomes import (
    ConnectAttempt,
    Connected,
    Objection,
    objection_to,
)
from ignition_broker.broker.grants.held_grants import HeldGrants, described
from ignition_broker.broker.grants.identity_probe import Identified, Unidentified
from ignition_broker.broker.grants.oauth_clients import OAuthClients
from ignition_broker.broker.grants.revocations import Revocations
from ignition_broker.broker.grants.storage_retries import until_stored
from ignition_broker.cipher import Cipher, CipherError
from ignition_broker.clock import Clock
from ignition_broker.model import Account, AuditEvent, is_known_end
from ignition_broker.oauth.tokens import AccessToken
from ignition_broker.storage import accounts, audit, callbacks, held_grants, tenants
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError, StorageUnavailable
from ignition_broker.storage.held_grants import HeldGrant
from ignition_broker.storage.makers import Standing
from ignition_broker.storage.pending_revocations import PendingRevocation
from ignition_broker.storage.sealed_tokens import Stored

log = structlog.get_logger(__name__)

ASK_SECONDS: Final = 60.0
"""For how long whoever holds tokens alone asks for their account; more than the probe takes."""
TICK_SECONDS: Final = 5.0

Answer = Identified | Unidentified


class Identification:
    """Asks by the probe of the grant's client in ``clients``. ``standing``: tells whether whoever
    began an attempt may still connect."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        clients: OAuthClients,
        clock: Clock,
        revocations: Revocations,
        grants: HeldGrants,
        *,
        standing: Standing,
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._clock = clock
        self._revocations = revocations
        self._grants = grants
        self._clients = clients
        self._standing = standing

    @property
    def asks_any(self) -> bool:
        """Whether accounts are asked for at all."""
        return self._clients.any_probe

    def asks(self, tenant: str) -> bool:
        """Whether the tenant's account is asked for."""
        return self._clients.probe_of(tenant) is not None

    async def must_hold(self, connection: Connection, tenant: str) -> bool:
        """Whether new tokens of the tenant must be held until their account is known."""
        return self.asks(tenant) and await accounts.last(connection, tenant) is not None

    async def identify(
        self, attempt: ConnectAttempt, stored: Stored, token: AccessToken
    ) -> Account | None:
        """Asks for the account of a connection that is ``stored``, and notes it.

        Returns None where it is not known; that is logged, and recorded in the audit trail.
        """
        if not self.asks(attempt.tenant):
            return None
        found = await self._ask(attempt.tenant, token)
        try:
            await until_stored(
                lambda: self._noted(attempt, stored, found),
                self._clock,
                on_failure=_failed_to_store,
                retried=StorageUnavailable,
            )
        except StorageError as error:
            _failed_to_store(error)
            return None
        return found.account if isinstance(found, Identified) else None

    async def settle(self, attempt: ConnectAttempt, token: AccessToken) -> Connected:
        """Asks for the account of the tokens that are held for ``attempt``, and connects the tenant
        if it is that of before, or can't be known.

        Raises `AccountMismatch` if it is another one: the tokens stay held for an admin to confirm.
        Raises `ConnectFailed` if the attempt may no longer connect.
        """
        found = await self._ask(attempt.tenant, token)
        settled = await until_stored(
            lambda: self._settled(attempt, found),
            self._clock,
            on_failure=_failed_to_store,
            retried=StorageUnavailable,
        )
        if isinstance(settled, AccountMismatch):
            log.warning("account_mismatch", tenant=attempt.tenant, account=settled.account.id)
            raise settled
        if isinstance(settled, Connected):
            return settled
        objection, pending = settled
        if pending is not None:
            await self._revocations.attempt(pending)
        raise await record_failure(self._database, attempt, objection.title, objection.detail)

    async def run(self) -> None:
        """Takes up what a killed replica has left and what nobody confirmed, until it is
        cancelled."""
        while True:
            try:
                while await self._take_up():
                    pass
            except StorageError as error:
                log.warning("held_grants_postponed", reason=str(error))
            except Exception:
                # It must survive unforeseen errors.
                log.exception("held_grants_failed")
            await self._clock.sleep(TICK_SECONDS)

    async def _take_up(self) -> bool:
        held = await self._database.single(
            lambda c: held_grants.claim(c, lease_seconds=ASK_SECONDS)
        )
        if held is None:
            return False
        if held.is_expired or held.account is not None:
            await self._grants.expire(held)
            return True
        try:
            access_token = self._cipher.decrypt(
                held.tenant, "access_token", held.sealed.access_token
            )
        except CipherError as error:
            log.warning("grant_unreadable", tenant=held.tenant, reason=str(error))
            return True
        attempt = ConnectAttempt(held.state_hash, held.tenant, held.actor)
        try:
            await self.settle(attempt, AccessToken(access_token))
        except BrokerError:
            # Logged and recorded where it was raised.
            return True
        return True

    async def _ask(self, tenant: str, token: AccessToken) -> Answer:
        probe = self._clients.probe_of(tenant)
        if probe is None:
            return Unidentified("IGNITION_IDENTITY_URL is no longer set")
        if not token.reveal():
            return Unidentified("Ignition's answer had no access token to ask with")
        return await probe.ask(token)

    async def _noted(self, attempt: ConnectAttempt, stored: Stored, found: Answer) -> None:
        async with self._database.begin() as connection:
            await tenants.lock(connection, attempt.tenant)
            await self._note(connection, attempt, stored, found)

    async def _note(
        self, connection: Connection, attempt: ConnectAttempt, stored: Stored, found: Answer
    ) -> None:
        """Notes the account of the connection, and records what was found."""
        tenant, actor = attempt.tenant, attempt.actor
        detail: dict[str, object]
        match found:
            case Identified(account=account, warning=warning):
                shared_with = await accounts.note(
                    connection, tenant, account, connected_at=stored.connected_at
                )
                detail = described(account)
                if shared_with:
                    detail["shared_with"] = list(shared_with)
                    log.warning("account_shared", tenant=tenant, shared_with=shared_with)
                if warning is not None:
                    detail["warning"] = warning
                    log.warning("account_unnamed", tenant=tenant, reason=warning)
                outcome = "identified"
            case Unidentified(reason=reason):
                detail, outcome = {"reason": reason}, "unidentified"
                log.warning("account_unidentified", tenant=tenant, reason=reason)
        event = AuditEvent("account", outcome, actor.name, tenant, actor.request_id, detail)
        await audit.append(connection, event)

    async def _settled(
        self, attempt: ConnectAttempt, found: Answer
    ) -> Connected | AccountMismatch | tuple[Objection, PendingRevocation | None]:
        tenant = attempt.tenant
        account = found.account if isinstance(found, Identified) else None
        async with self._database.begin() as connection:
            await tenants.lock(connection, tenant)
            judgement = await callbacks.judge(connection, attempt.state_hash, self._standing)
            held = await held_grants.read(connection, tenant)
            if held is None or held.state_hash != attempt.state_hash:
                if judgement is not None and judgement.expires_at is not None:
                    # By a try whose commit was not answered.
                    past = judgement.expires_at
                    return Connected(tenant, judgement.scope or "", past, account=account)
                await held_grants.drop(connection, tenant, attempt.state_hash)
                return _OVERTAKEN, None
            objection = objection_to(judgement)
            if objection is not None:
                pending = await self._grants.let_go(connection, held, account, attempt.actor)
                return objection, pending
            expected = await accounts.last(connection, tenant)
            if account is not None and expected is not None and account.id != expected.id:
                return await _mismatch(connection, attempt, held, account, expected)
            stored = await self._grants.promote(connection, held, attempt.actor)
            await self._note(connection, attempt, stored, found)
        self._grants.note_promoted(held, stored)
        return Connected(
            tenant,
            held.sealed.scope,
            stored.expires_at,
            held.warning,
            is_renewable=held.sealed.has_refresh_token,
            has_known_end=is_known_end(held.sealed.lifetime_seconds),
            account=account,
        )


_OVERTAKEN: Final = Objection(
    "This sign-in was overtaken", "The tenant was connected or disconnected since it was begun."
)


async def _mismatch(
    connection: Connection,
    attempt: ConnectAttempt,
    held: HeldGrant,
    account: Account,
    expected: Account,
) -> AccountMismatch:
    await held_grants.name(connection, held, account)
    detail: dict[str, object] = {**described(account), "expected": expected.id}
    actor = attempt.actor
    await audit.append(
        connection,
        AuditEvent(
            "connect", "account_mismatch", actor.name, attempt.tenant, actor.request_id, detail
        ),
    )
    return AccountMismatch(attempt.tenant, account)


def _failed_to_store(error: StorageError) -> None:
    log.warning("connect_store_failed", reason=str(error))
