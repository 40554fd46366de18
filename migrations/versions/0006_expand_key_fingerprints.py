"""Each grant says which key its tokens are stored under.

``key_fingerprint`` counts where ``fingerprinted`` is the end of the access token's ciphertext: a
replica of the release before stores tokens without either, and what was noted of the tokens before
must then not be taken for theirs. Both indexes are partial: one serves the distinct keys and their
counts, the other the rows of which nothing is known, and shrinks to nothing as they are noted.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

CIPHERTEXT_END = "substring(access_token FROM length(access_token) - 7)"


def upgrade() -> None:
    op.add_column("grants", sa.Column("key_fingerprint", sa.Text))
    op.add_column("grants", sa.Column("fingerprinted", sa.LargeBinary))
    op.create_index(
        "grants_key_noted",
        "grants",
        ["key_fingerprint"],
        postgresql_where=sa.text(f"fingerprinted = {CIPHERTEXT_END}"),
    )
    op.create_index(
        "grants_key_unnoted",
        "grants",
        ["tenant_id"],
        postgresql_where=sa.text(
            f"access_token IS NOT NULL AND fingerprinted IS DISTINCT FROM {CIPHERTEXT_END}"
        ),
    )
