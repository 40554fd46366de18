"""Grants without a refresh token: how to recognize them, and how they end.

Their column ``refresh_token`` holds an encrypted empty string, and ``empty_refresh_token`` the last
8 bytes of that ciphertext. It is ignored if the ciphertext has changed since: a replica of a
release that does not know the column has then stored another token. If that one is empty, this is
noted when the token is first decrypted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text

from ignition_broker.model import Lease
from ignition_broker.oauth.tokens import ENDLESS_LIFETIME_SECONDS
from ignition_broker.storage.change_notices import NOTIFY_CHANGED
from ignition_broker.storage.connection import LOCK_BRIEFLY, Connection
from ignition_broker.storage.grant_columns import CLIENT_DETAIL, TENANT

REFRESH_TOKEN_END: Final = "substring(refresh_token FROM length(refresh_token) - 7)"
IS_RENEWABLE: Final = f"(empty_refresh_token IS DISTINCT FROM {REFRESH_TOKEN_END})"
_ENDLESS = f"make_interval(secs => {ENDLESS_LIFETIME_SECONDS / 2})"
HAS_KNOWN_END: Final = f"(grants.expires_at - grants.issued_at < {_ENDLESS})"
"""The SQL for `model.is_known_end`."""

ENDS_WITH_ITS_TOKEN = (
    "Ignition gave no refresh token, so the grant ends with its access token; connect it again "
    "before that"
)
HAS_ENDED = "the access token ended, and Ignition had given no refresh token to renew it with"
WARNED_AHEAD_DAYS = 7
"""A token that lives for less than twice as long is warned of in the second half of its life."""

NOTE_EMPTY = text(f"""
    UPDATE grants SET empty_refresh_token = {REFRESH_TOKEN_END}, lease_owner = NULL,
        lease_until = NULL, refresh_started_at = NULL, next_refresh_at = NULL
    WHERE tenant_id = :tenant AND version = :version AND lease_owner = :owner
      AND {LOCK_BRIEFLY}
""")  # noqa: S608  # constants of this module alone

# Nothing below waits for a locked row: it is looked at again the next time.
_UNRENEWABLE = f"status = 'connected' AND empty_refresh_token IS NOT NULL AND NOT {IS_RENEWABLE}"

WARN = text(f"""
    WITH ending AS (
        SELECT tenant_id FROM grants
        WHERE {_UNRENEWABLE} AND end_warned_version IS DISTINCT FROM version
          AND expires_at > now() AND expires_at < now() + interval '{WARNED_AHEAD_DAYS} days'
          AND now() > expires_at - (expires_at - issued_at) / 2
        ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED
    ), changed AS (
        UPDATE grants SET end_warned_version = version, last_error = :error
        FROM ending WHERE grants.tenant_id = ending.tenant_id
        RETURNING grants.tenant_id, version, expires_at
    ), audited AS (
        INSERT INTO audit_events (tenant_id, actor, action, outcome, detail)
        SELECT {TENANT}, 'broker', 'grant_end', 'ending_soon',
            jsonb_build_object('version', version, 'ends_at', expires_at) || {CLIENT_DETAIL}
        FROM changed
    )
    SELECT tenant_id, expires_at FROM changed
""")  # noqa: S608

# Renewing does not move the end: it is where it was at the connect. In the last quarter of its
# life, since one that moves is renewed when two thirds are over.
WARN_OF_LAPSE = text(f"""
    WITH lapsing AS (
        SELECT tenant_id FROM grants
        WHERE status = 'connected' AND {IS_RENEWABLE}
          AND refresh_token_expires_at - refresh_token_first_end < interval '60 seconds'
          AND lapse_warned_for IS DISTINCT FROM refresh_token_first_end
          AND refresh_token_expires_at > now()
          AND refresh_token_expires_at < now() + interval '{WARNED_AHEAD_DAYS} days'
          AND now() > refresh_token_expires_at - (refresh_token_expires_at - connected_at) / 4
        ORDER BY refresh_token_expires_at LIMIT :limit FOR UPDATE SKIP LOCKED
    ), changed AS (
        UPDATE grants SET lapse_warned_for = refresh_token_first_end
        FROM lapsing WHERE grants.tenant_id = lapsing.tenant_id
        RETURNING grants.tenant_id, version, refresh_token_expires_at
    ), audited AS (
        INSERT INTO audit_events (tenant_id, actor, action, outcome, detail)
        SELECT {TENANT}, 'broker', 'grant_end', 'ending_soon',
            jsonb_build_object(
                'version', version, 'refresh_token_ends_at', refresh_token_expires_at)
                || {CLIENT_DETAIL}
        FROM changed
    )
    SELECT tenant_id, refresh_token_expires_at FROM changed
""")  # noqa: S608

END = text(f"""
    WITH ended AS (
        SELECT tenant_id FROM grants
        WHERE {_UNRENEWABLE} AND expires_at <= now()
          AND (CAST(:tenant AS text) IS NULL OR tenant_id = :tenant)
        ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED
    ), changed AS (
        UPDATE grants SET status = 'reauthorization_required', lease_owner = NULL,
            lease_until = NULL, refresh_started_at = NULL, next_refresh_at = NULL,
            last_error = :error
        FROM ended WHERE grants.tenant_id = ended.tenant_id
        RETURNING grants.tenant_id, version, status, expires_at
    ), audited AS (
        INSERT INTO audit_events (tenant_id, actor, action, outcome, detail)
        SELECT {TENANT}, 'broker', 'grant_end', 'ended',
            jsonb_build_object('version', version, 'ended_at', expires_at) || {CLIENT_DETAIL}
        FROM changed
    )
    SELECT tenant_id, expires_at, {NOTIFY_CHANGED}
    FROM changed
""")  # noqa: S608


@dataclass(frozen=True, slots=True)
class Ending:
    """A tenant whose grant ends at that time, on the database's clock."""

    tenant: str
    at: datetime


async def note_empty(connection: Connection, lease: Lease) -> None:
    """Notes that the leased refresh token is an empty string, so that the grant is not claimed
    again."""
    parameters = {"tenant": lease.tenant, "version": lease.version, "owner": lease.owner}
    await connection.execute(NOTE_EMPTY, parameters)


async def warn(connection: Connection, *, limit: int) -> Sequence[Ending]:
    """Records warnings for at most ``limit`` grants that end soon, once for each token; returns
    them."""
    rows = await connection.execute(WARN, {"limit": limit, "error": ENDS_WITH_ITS_TOKEN})
    return [Ending(row.tenant_id, row.expires_at) for row in rows]


async def warn_of_lapse(connection: Connection, *, limit: int) -> Sequence[Ending]:
    """Records warnings for at most ``limit`` grants whose refresh token ends soon, whatever is
    renewed, once for each connect; returns them."""
    rows = await connection.execute(WARN_OF_LAPSE, {"limit": limit})
    return [Ending(row.tenant_id, row.refresh_token_expires_at) for row in rows]


async def end(
    connection: Connection, *, tenant: str | None = None, limit: int = 1
) -> Sequence[Ending]:
    """Ends at most ``limit`` grants whose token has expired and returns them.

    ``tenant`` None: of all tenants.
    """
    parameters = {"tenant": tenant, "limit": limit, "error": HAS_ENDED}
    rows = await connection.execute(END, parameters)
    return [Ending(row.tenant_id, row.expires_at) for row in rows]
