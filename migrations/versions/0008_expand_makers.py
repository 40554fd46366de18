"""Links and sign-ins say what made them, so that they end with it.

``tenants.generation`` counts connects and disconnects. A link or a sign-in of an older generation
connects nothing. A replica of the release before writes links and sign-ins without a generation or
a maker: those are held to neither, for as long as they live.

``callbacks`` holds the sign-ins whose code was sent: a second visit of the same callback is
answered from here. The release before deletes such rows and shows an error.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

NEW_ID = "left(gen_random_uuid()::text, 13)"
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column(
        "tenants",
        sa.Column("generation", sa.BigInteger, nullable=False, server_default="0"),
    )
    for table in ("authorizations", "connect_links"):
        op.add_column(table, sa.Column("generation", sa.BigInteger))
        op.add_column(table, sa.Column("made_by_key", sa.LargeBinary))
        op.add_column(table, sa.Column("made_by_setting", sa.LargeBinary))
        op.add_column(table, sa.Column("made_by_session", sa.LargeBinary))
    op.add_column("authorizations", sa.Column("link_id", sa.Text))
    op.add_column(
        "connect_links",
        sa.Column("id", sa.Text, nullable=False, server_default=sa.text(NEW_ID)),
    )
    op.add_column("connect_links", sa.Column("revoked_at", MOMENT))
    op.create_index("connect_links_tenant", "connect_links", ["tenant_id", "id"], unique=True)
    # Links that are out there already end with their key, too.
    op.execute("""
        UPDATE connect_links SET generation = 0, made_by_key = (
            SELECT key_hash FROM api_keys WHERE name = connect_links.created_by)
    """)
    # The key that made these was revoked, and its name given to another since.
    op.execute("""
        UPDATE connect_links SET used_at = now(), revoked_at = now() FROM api_keys
        WHERE name = created_by AND created_at > connect_links.expires_at - interval '7 days'
          AND used_at IS NULL
    """)
    op.create_table(
        "callbacks",
        sa.Column("state_hash", sa.LargeBinary, primary_key=True),
        sa.Column("browser_hash", sa.LargeBinary, nullable=False),
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("generation", sa.BigInteger),
        sa.Column("made_by_key", sa.LargeBinary),
        sa.Column("made_by_setting", sa.LargeBinary),
        sa.Column("made_by_session", sa.LargeBinary),
        sa.Column("link_id", sa.Text),
        sa.Column("taken_at", MOMENT, nullable=False, server_default=sa.func.now()),
        sa.Column("connected_at", MOMENT),
        sa.Column("connected_generation", sa.BigInteger),
        sa.Column("scope", sa.Text),
        sa.Column("expires_at", MOMENT),
        sa.Column("warning", sa.Text),
    )
    op.create_index("callbacks_taken", "callbacks", ["taken_at"])
