"""Grants that a reconnect brought for another account: kept beside the tenant's own until an admin
confirms one, or lets it go.

They are kept rather than revoked: at some providers a new grant ends the one before, so that the
held tokens may be the only good ones, and whoever signed in need not do so again.
"""

from __future__ import annotations

import structlog

from ignition_broker.broker.errors import AccountMismatch, NotFound, UnknownTenant
from ignition_broker.broker.grants.read_repair import ReadRepair
from ignition_broker.broker.grants.refresh_policy import RefreshPolicy
from ignition_broker.broker.grants.remembered_answers import RememberedAnswer
from ignition_broker.broker.grants.revocations import Revocations
from ignition_broker.cipher import Cipher, CipherError
from ignition_broker.clock import Clock
from ignition_broker.grant_ids import client_of
from ignition_broker.model import BROKER, Account, Actor, AuditEvent, GrantStatus
from ignition_broker.oauth.tokens import RefreshToken
from ignition_broker.storage import accounts, audit, callbacks, held_grants, new_tokens, tenants
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.database import Database
from ignition_broker.storage.held_grants import HeldGrant
from ignition_broker.storage.pending_revocations import PendingRevocation
from ignition_broker.storage.sealed_tokens import Stored

log = structlog.get_logger(__name__)


class HeldGrants:
    """What becomes of them. Each method raises the errors of `storage.errors`."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        policy: RefreshPolicy,
        clock: Clock,
        revocations: Revocations,
        repair: ReadRepair,
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._policy = policy
        self._clock = clock
        self._revocations = revocations
        self._repair = repair

    async def confirm(self, tenant: str, account_id: str, actor: Actor) -> None:
        """Connects the tenant to the account whose grant is held.

        ``account_id``: the one that the admin was shown. Raises `UnknownTenant`, `NotFound` if
        nothing is held, or `AccountMismatch` if by now another account's is.
        """
        async with self._database.begin() as connection:
            held, account = await self._named(connection, tenant)
            if account.id != account_id:
                raise AccountMismatch(tenant, account, "Look at it again before you confirm it.")
            before = await accounts.last(connection, tenant)
            stored = await self.promote(connection, held, actor)
            shared_with = await accounts.note(
                connection, tenant, account, connected_at=stored.connected_at
            )
            detail: dict[str, object] = {
                **described(account),
                "replaced": None if before is None else before.id,
                "shared_with": list(shared_with or ()),
            }
            await audit.append(connection, _event("account_confirm", "done", tenant, actor, detail))
        self.note_promoted(held, stored)
        log.info("account_confirmed", tenant=tenant, account=account.id)

    async def discard(self, tenant: str, actor: Actor) -> None:
        """Deletes the held grant, and revokes it where that ends no other grant of the account.

        Raises `UnknownTenant`, or `NotFound` if nothing is held.
        """
        async with self._database.begin() as connection:
            held, account = await self._named(connection, tenant)
            pending = await self.let_go(connection, held, account, actor)
            event = _event("account_discard", "done", tenant, actor, described(account))
            await audit.append(connection, event)
        if pending is not None:
            await self._revocations.attempt(pending)

    async def expire(self, held: HeldGrant) -> None:
        """Deletes a held grant that nobody confirmed in time, as `discard` does."""
        tenant, account = held.tenant, held.account
        async with self._database.begin() as connection:
            await tenants.lock(connection, tenant)
            pending = await self.let_go(connection, held, account, BROKER)
            detail = {} if account is None else described(account)
            event = _event("account_discard", "expired", tenant, BROKER, detail)
            await audit.append(connection, event)
        if pending is not None:
            await self._revocations.attempt(pending)

    async def promote(self, connection: Connection, held: HeldGrant, actor: Actor) -> Stored:
        """Makes the held tokens the tenant's grant, whatever that held before.

        Call it in a transaction that has locked the tenant, and `note_promoted` after its commit.
        """
        await tenants.end_begun(connection, held.tenant)
        await held_grants.drop(connection, held.tenant)
        detail: dict[str, object] = {
            "scope": held.sealed.scope,
            "renewable": held.sealed.has_refresh_token,
            **({} if held.warning is None else {"warning": held.warning}),
        }
        stored = await new_tokens.store_connected(
            connection,
            held.tenant,
            held.sealed,
            self._policy.schedule(
                held.sealed.lifetime_seconds, held.sealed.refresh_lifetime_seconds
            ),
            _event("connect", "done", held.tenant, actor, detail),
            age_seconds=held.age_seconds,
        )
        await callbacks.note_connected(
            connection,
            held.state_hash,
            scope=held.sealed.scope,
            expires_at=stored.expires_at,
            warning=held.warning,
        )
        return stored

    def note_promoted(self, held: HeldGrant, stored: Stored) -> None:
        """Remembers what `promote` stored, in case the database loses it."""
        schedule = self._policy.schedule(
            held.sealed.lifetime_seconds, held.sealed.refresh_lifetime_seconds
        )
        requested_at = self._clock.monotonic() - held.age_seconds
        answered = RememberedAnswer(stored, held.sealed, schedule, requested_at)
        self._repair.note_stored(held.tenant, answered)
        renewable = held.sealed.has_refresh_token
        log.info("tenant_connected", tenant=held.tenant, renewable=renewable)

    async def let_go(
        self, connection: Connection, held: HeldGrant, account: Account | None, actor: Actor
    ) -> PendingRevocation | None:
        """Deletes a held grant in a transaction that has locked the tenant.

        Returns what the caller has to `Revocations.attempt` after the commit, if anything: not
        where a tenant is connected to that account, nor where the account is unknown and this
        tenant has a grant. At some providers the revocation would end those too.
        """
        await held_grants.drop(connection, held.tenant, held.state_hash)
        if account is None:
            summary = await tenants.read(connection, held.tenant)
            is_in_use = summary is None or summary.status is not GrantStatus.DISCONNECTED
        else:
            client = client_of(held.tenant)
            is_in_use = await accounts.is_in_use(connection, account.id, client=client)
        if is_in_use:
            return None
        try:
            text = self._cipher.decrypt(held.tenant, "refresh_token", held.sealed.refresh_token)
        except CipherError as error:
            log.warning("grant_unreadable", tenant=held.tenant, reason=str(error))
            return None
        if not text:
            return None
        return await self._revocations.add(connection, held.tenant, RefreshToken(text), actor)

    async def let_go_of(
        self, connection: Connection, tenant: str, actor: Actor
    ) -> PendingRevocation | None:
        """As `let_go`, of whatever is held for a tenant that is being disconnected."""
        held = await held_grants.read_any(connection, tenant)
        return None if held is None else await self.let_go(connection, held, held.account, actor)

    async def _named(self, connection: Connection, tenant: str) -> tuple[HeldGrant, Account]:
        """What an admin can confirm, with the tenant locked."""
        await tenants.lock(connection, tenant)
        if await tenants.read(connection, tenant) is None:
            raise UnknownTenant(tenant)
        held = await held_grants.read(connection, tenant)
        if held is None or held.account is None or held.is_expired:
            raise NotFound("No other account waits to be confirmed.", tenant=tenant)
        return held, held.account


def described(account: Account) -> dict[str, object]:
    """An account in an audit event's detail."""
    return {"account": {"id": account.id, "name": account.name}}


def _event(
    action: str, outcome: str, tenant: str, actor: Actor, detail: dict[str, object]
) -> AuditEvent:
    return AuditEvent(action, outcome, actor.name, tenant, actor.request_id, detail)
