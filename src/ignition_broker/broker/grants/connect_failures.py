"""Records why an attempt to connect a tenant failed."""

from __future__ import annotations

import structlog

from ignition_broker.broker.grants.connect_outcomes import ConnectAttempt, ConnectFailed
from ignition_broker.model import AuditEvent
from ignition_broker.storage import audit, callbacks
from ignition_broker.storage.database import Database

log = structlog.get_logger(__name__)


async def record_failure(
    database: Database,
    attempt: ConnectAttempt,
    title: str,
    detail: str,
    error: str | None = None,
) -> ConnectFailed:
    """Ends the attempt, in the audit trail too; returns the error to raise.

    ``title`` and ``detail`` are for the page; ``error`` is the OAuth error or the kind of failure.
    """
    async with database.begin() as connection:
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
