"""Which account at Ignition a tenant is connected to.

The account of the last connection of which it was known stays with the tenant, also past a
disconnect, as what a reconnect is compared with. It is shown as the tenant's only while the grant
is of that very connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import text

from ignition_broker.model import Account
from ignition_broker.storage.connection import Connection

LAST = text("""
    SELECT account_id, account_name FROM tenants
    WHERE id = :tenant AND account_id IS NOT NULL
""")

# At some providers the grants of one account end each other; at all they share its allowance.
SHARED_WITH = """
    SELECT other.tenant FROM tenants other JOIN grants theirs ON theirs.tenant_id = other.id
    WHERE other.account_id = tenants.account_id AND other.id <> tenants.id
      AND other.client = tenants.client
      AND theirs.status = 'connected' AND theirs.connected_at = other.account_connected_at
    ORDER BY other.tenant LIMIT 20
"""
"""The first other tenants that are connected to the account of the row of ``tenants``, at the same
OAuth client."""

NOTE = text(f"""
    UPDATE tenants SET account_id = :account_id, account_name = :account_name,
        account_connected_at = :connected_at
    WHERE id = :tenant AND EXISTS (
        SELECT FROM grants WHERE tenant_id = :tenant AND connected_at = :connected_at)
    RETURNING ARRAY({SHARED_WITH}) AS shared_with
""")  # noqa: S608  # constants of this package alone

IN_USE = text("""
    SELECT EXISTS (
        SELECT FROM tenants JOIN grants ON grants.tenant_id = tenants.id
        WHERE tenants.account_id = :account_id AND tenants.client = :client
          AND grants.status = 'connected'
          AND grants.connected_at = tenants.account_connected_at)
""")


async def last(connection: Connection, tenant: str) -> Account | None:
    """The account that the tenant was last known to be connected to; None: it never was."""
    row = (await connection.execute(LAST, {"tenant": tenant})).one_or_none()
    return None if row is None else Account(row.account_id, row.account_name)


async def note(
    connection: Connection, tenant: str, account: Account, *, connected_at: datetime
) -> Sequence[str] | None:
    """Notes the account of the connection that was made at ``connected_at``.

    Returns the first other tenants that are connected to it; None, if the tenant was connected
    anew since, so that nothing was noted.
    """
    parameters = {
        "tenant": tenant,
        "account_id": account.id,
        "account_name": account.name,
        "connected_at": connected_at,
    }
    row = (await connection.execute(NOTE, parameters)).one_or_none()
    return None if row is None else list(row.shared_with)


async def is_in_use(connection: Connection, account_id: str, *, client: str) -> bool:
    """Whether any tenant is connected to that account at that OAuth client."""
    return bool(await connection.scalar(IN_USE, {"account_id": account_id, "client": client}))
