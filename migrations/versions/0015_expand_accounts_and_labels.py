"""Who a tenant is: its name, its labels, and the account at Ignition that it is connected to.

``account_connected_at`` is the connection of which the account was asked: the account counts as
known only where it equals the grant's ``connected_at``, so that a replica of the release before
may connect the tenant anew and note nothing. The label index is partial, since most tenants of an
installation that uses none have NULL there.

``held_grants`` has tokens that Ignition has issued and that do not yet replace a tenant's grant:
their account is still being asked, or is another one, which an admin has to confirm.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("tenants", sa.Column("name", sa.Text))
    op.add_column("tenants", sa.Column("labels", JSONB))
    op.add_column("tenants", sa.Column("account_id", sa.Text))
    op.add_column("tenants", sa.Column("account_name", sa.Text))
    op.add_column("tenants", sa.Column("account_connected_at", MOMENT))
    op.create_index(
        "tenants_labels",
        "tenants",
        ["labels"],
        postgresql_using="gin",
        postgresql_ops={"labels": "jsonb_path_ops"},
        postgresql_where=sa.text("labels IS NOT NULL"),
    )
    op.create_index(
        "tenants_account",
        "tenants",
        ["account_id", "id"],
        postgresql_where=sa.text("account_id IS NOT NULL"),
    )
    op.create_table(
        "held_grants",
        sa.Column("tenant_id", sa.Text, sa.ForeignKey("tenants.id"), primary_key=True),
        sa.Column("state_hash", sa.LargeBinary, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("access_token", sa.LargeBinary, nullable=False),
        sa.Column("refresh_token", sa.LargeBinary, nullable=False),
        sa.Column("key_fingerprint", sa.Text, nullable=False),
        sa.Column("token_type", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("has_refresh_token", sa.Boolean, nullable=False),
        sa.Column("lifetime_seconds", sa.Float, nullable=False),
        sa.Column("refresh_lifetime_seconds", sa.Float),
        sa.Column("requested_at", MOMENT, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text),
        sa.Column("warning", sa.Text),
        sa.Column("account_id", sa.Text),
        sa.Column("account_name", sa.Text),
        sa.Column("next_try_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
    )
    op.create_index("held_grants_due", "held_grants", ["next_try_at"])
