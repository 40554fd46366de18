"""API keys may be held to methods and paths; NULL, as the release before writes it: to none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("paths", sa.ARRAY(sa.Text)))
