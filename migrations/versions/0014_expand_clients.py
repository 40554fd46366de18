"""Grants at several OAuth clients.

A tenant's id becomes the id of its grant: at another client than the default it is
``tenant@client``. The tenant and the client are read off it by generated columns, so the release
before goes on working: what it inserts is the default client's. To add the columns, Postgres writes
``tenants`` anew, some seconds for a million; only connecting, disconnecting and the lists of admins
wait for that. The index of ``grants`` holds the other clients' alone.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # One statement, so that the table is written anew once.
    op.execute(
        """
        ALTER TABLE tenants
            ADD COLUMN tenant text GENERATED ALWAYS AS (split_part(id, '@', 1)) STORED,
            ADD COLUMN client text GENERATED ALWAYS AS
                (coalesce(nullif(split_part(id, '@', 2), ''), 'default')) STORED
        """
    )
    op.create_index("tenants_tenant_client", "tenants", ["tenant", "client"], unique=True)
    op.create_index(
        "grants_due_of_others",
        "grants",
        [sa.text("split_part(tenant_id, '@', 2)"), "next_refresh_at"],
        postgresql_where=sa.text("status = 'connected' AND strpos(tenant_id, '@') > 0"),
    )
