"""What is written into a database that went back, and how it is reported."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from ignition_broker.broker.grants.remembered_answers import RememberedAnswer
from ignition_broker.broker.grants.revocations import Revocations
from ignition_broker.cipher import Cipher
from ignition_broker.clock import Clock
from ignition_broker.model import BROKER, AuditEvent, GrantStatus, Lease
from ignition_broker.storage import api_keys, audit, connect_links, grants, restoring, tenants
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageError
from ignition_broker.storage.restoring import RowState
from ignition_broker.storage.sealed_tokens import Schedule, SealedTokens, Stored

log = structlog.get_logger(__name__)


class RowRepair:
    """Writes repairs. ``on_went_back(outcome)`` counts them: ``behind``, ``restored``,
    ``disconnected_again`` or ``key_revoked_again``."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        clock: Clock,
        revocations: Revocations,
        on_went_back: Callable[[str], None],
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._clock = clock
        self._revocations = revocations
        self._on_went_back = on_went_back

    async def state_of(self, tenant: str) -> RowState | None:
        """What the tenant's row holds; None if Postgres can't be asked."""
        asked_at = self._clock.monotonic()
        try:
            found = await self._database.once(
                lambda c: restoring.states(c, [tenant], asked_at=asked_at)
            )
        except StorageError:
            return None
        return found.get(tenant, restoring.NO_ROW)

    async def restore(self, tenant: str, answer: RememberedAnswer) -> bool:
        """Stores the remembered answer again if the row is older; whether it was.

        If Postgres is away, that is logged.
        """
        stored = answer.stored
        event = _event("restored", tenant, version=stored.version)

        async def work(connection: Connection) -> restoring.Restored | None:
            return await restoring.restore(
                connection,
                tenant,
                answer.sealed,
                answer.schedule,
                event,
                version=stored.version,
                connected_at=stored.connected_at,
                age_seconds=self._clock.monotonic() - answer.requested_at,
                issued_at=stored.issued_at,
            )

        try:
            restored = await self._database.once(work)
        except StorageError as error:
            log.warning("grant_repair_failed", tenant=tenant, reason=str(error))
            return False
        if restored is None:
            return False
        self._report("restored", tenant, stored.version, restored.found_version)
        return True

    async def store_above(
        self,
        connection: Connection,
        lease: Lease,
        sealed: SealedTokens,
        schedule: Schedule,
        event: AuditEvent,
        *,
        age_seconds: float,
    ) -> Stored | None:
        """Stores Ignition's answer to a lease whose row went back below the lease's version.

        ``event``: the answer's own audit event, which is recorded too. ``age_seconds``: since the
        request that brought the tokens. Returns None if the row has moved on. Raises the errors of
        `storage.errors`.
        """
        version = lease.version + 1
        restored = await restoring.restore(
            connection,
            lease.tenant,
            sealed,
            schedule,
            _event("restored", lease.tenant, version=version),
            version=version,
            connected_at=lease.connected_at,
            age_seconds=age_seconds,
            issued_at=None,
        )
        if restored is None:
            return None
        self._report("restored", lease.tenant, version, restored.found_version)
        await audit.append(connection, event)
        return restored.stored

    async def mark(
        self,
        tenant: str,
        found: RowState,
        known_version: int,
        *,
        wait_seconds: float,
        is_news: bool,
    ) -> None:
        """Notes in the row and the audit trail that the row is behind ``known_version``.

        Its refresh token is left alone for ``wait_seconds``. ``is_news``: it is logged and counted
        too. If Postgres is away, that is logged.
        """
        if is_news:
            self._report("behind", tenant, known_version, found.version)
        event = _event("behind", tenant, version=known_version, found_version=found.version)
        error = (
            f"the database went back: version {known_version} was stored before, and version "
            f"{found.version} is there now"
        )

        async def work(connection: Connection) -> None:
            if found.status is GrantStatus.CONNECTED:
                await restoring.mark_behind(
                    connection,
                    tenant,
                    event,
                    version=found.version,
                    error=error,
                    wait_seconds=wait_seconds,
                )
            elif is_news:
                await audit.append(connection, event)

        try:
            await self._database.single(work)
        except StorageError as away:
            log.warning("grant_repair_failed", tenant=tenant, reason=str(away))

    async def disconnect_again(self, tenant: str, found: RowState, known_version: int) -> bool:
        """Repeats a disconnect that the database has forgotten.

        Returns False if the row is no longer as it was ``found``, or Postgres is away.
        """
        event = _event(
            "disconnected_again", tenant, version=known_version, found_version=found.version
        )
        try:
            async with self._database.begin() as connection:
                await tenants.lock(connection, tenant)
                if not await restoring.hold(connection, tenant, version=found.version):
                    return False
                await tenants.end_begun(connection, tenant)
                await connect_links.revoke_all(connection, tenant)
                token = await grants.disconnect(connection, self._cipher, tenant, event)
                if token is not None:
                    # Callers wait for this row, so Ignition is not asked now but by a later try.
                    await self._revocations.add(connection, tenant, token, BROKER)
        except StorageError as error:
            log.warning("grant_repair_failed", tenant=tenant, reason=str(error))
            return False
        self._report("disconnected_again", tenant, known_version, found.version)
        return True

    async def revoke_key_again(self, name: str, created_at: int) -> None:
        """Repeats the revocation of an API key if the database has forgotten it.

        ``created_at``: of the key, in microseconds since 1970. Raises `StorageError`.
        """
        event = AuditEvent(
            "database_went_back", "key_revoked_again", "broker", detail={"key": name}
        )
        if await self._database.once(
            lambda c: api_keys.revoke_again(c, name, event, created_at=created_at)
        ):
            log.error("database_went_back", outcome="key_revoked_again", key=name)
            self._on_went_back("key_revoked_again")

    def _report(self, outcome: str, tenant: str, version: int, found_version: int) -> None:
        log.error(
            "database_went_back",
            outcome=outcome,
            tenant=tenant,
            version=version,
            found_version=found_version,
        )
        self._on_went_back(outcome)


def _event(outcome: str, tenant: str, **detail: object) -> AuditEvent:
    return AuditEvent("database_went_back", outcome, "broker", tenant, detail=detail)
