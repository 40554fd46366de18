"""Admins' sessions are rows, so that a sign-out ends one on every replica."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("token_hash", sa.LargeBinary, primary_key=True),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("key_hash", sa.LargeBinary),
        sa.Column("issuer", sa.Text),
        sa.Column("groups", sa.ARRAY(sa.Text)),
        sa.Column("sign_on_hash", sa.LargeBinary, unique=True),
        sa.Column("begun_at", MOMENT, nullable=False, server_default=sa.func.now()),
        sa.Column("seen_at", MOMENT, nullable=False, server_default=sa.func.now()),
        sa.Column("authenticated_at", MOMENT),
        sa.Column("ended_at", MOMENT),
    )
    op.create_index("sessions_begun", "sessions", ["begun_at"])
