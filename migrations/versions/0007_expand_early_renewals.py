"""How many renewals in a row callers forced early, so that every replica paces them alike."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "grants", sa.Column("early_renewals", sa.Integer, nullable=False, server_default="0")
    )
