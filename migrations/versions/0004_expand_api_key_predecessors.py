"""Rotated keys go on working for a while; the release before knows their newest hash alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "api_key_predecessors",
        sa.Column("key_hash", sa.LargeBinary, primary_key=True),
        sa.Column("name", sa.Text, sa.ForeignKey("api_keys.name"), nullable=False),
        sa.Column("replaced_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
    )
    op.create_index("api_key_predecessors_name", "api_key_predecessors", ["name"])
