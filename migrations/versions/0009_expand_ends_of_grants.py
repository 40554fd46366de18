"""Grants that can't be renewed, and when a refresh token lapses.

``empty_refresh_token`` counts where it is the end of the refresh token's ciphertext: a replica of
the release before stores an encrypted empty text and notes nothing, and may replace a noted one by
a real refresh token. ``end_warned_version`` is the version of which its end was announced. The
index is partial: it serves those grants alone, by their end.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("grants", sa.Column("empty_refresh_token", sa.LargeBinary))
    op.add_column("grants", sa.Column("end_warned_version", sa.BigInteger))
    op.add_column("grants", sa.Column("refresh_token_expires_at", sa.DateTime(timezone=True)))
    op.create_index(
        "grants_unrenewable",
        "grants",
        ["expires_at"],
        postgresql_where=sa.text("status = 'connected' AND empty_refresh_token IS NOT NULL"),
    )
