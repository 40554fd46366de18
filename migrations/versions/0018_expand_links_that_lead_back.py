"""Where the pages behind a connect link lead back to.

Its own column, since a sign-in finds its link by ``link_id``: `authorizations.return_to` stays
unused.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("connect_links", sa.Column("return_to", sa.Text))
