"""What the console's pages read: refreshes by the hour, ended grants, tenants by how their names
begin, and who made an API key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # No foreign keys: what is here may be lost without harm, and must lock nothing else.
    op.create_table(
        "refresh_hours",
        sa.Column("hour", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("client", sa.Text, primary_key=True),
        sa.Column("outcome", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    # Partial, so that a renewal, which is of a connected grant, does not touch it.
    op.create_index(
        "grants_ended",
        "grants",
        ["tenant_id"],
        postgresql_where=sa.text("status = 'reauthorization_required'"),
    )
    op.create_index(
        "tenants_begin",
        "tenants",
        ["tenant"],
        postgresql_ops={"tenant": "text_pattern_ops"},
    )
    op.create_index(
        "tenants_name_begin",
        "tenants",
        [sa.text("lower(name) text_pattern_ops")],
        postgresql_where=sa.text("name IS NOT NULL"),
    )
    op.add_column("api_keys", sa.Column("created_by", sa.Text))
