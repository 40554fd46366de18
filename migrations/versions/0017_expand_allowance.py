"""What tenants use of their calls at Ignition's API; weight and reserve of an API key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column(
        "api_keys", sa.Column("allowance_weight", sa.Integer, nullable=False, server_default="1")
    )
    op.add_column(
        "api_keys", sa.Column("allowance_reserve", sa.Integer, nullable=False, server_default="0")
    )
    # No foreign keys: what is here may be lost without harm, and must lock nothing else.
    op.create_table(
        "allowance_windows",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("ends_at", MOMENT, nullable=False),
        sa.Column("calls", sa.BigInteger, nullable=False),
        sa.Column("end_is_told", sa.Boolean, nullable=False),
        sa.Column("counted", sa.BigInteger),
        sa.Column("counted_at", MOMENT),
        sa.Column("others", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("tells", sa.Boolean),
        sa.Column("spent_until", MOMENT),
        sa.Column("past", JSONB, nullable=False, server_default="{}"),
    )
    op.create_table(
        "allowance_leases",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("replica", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("spare", sa.BigInteger, nullable=False),
        sa.Column("in_flight", sa.BigInteger, nullable=False),
        sa.Column("carried", sa.BigInteger, nullable=False),
        sa.Column("lease_until", MOMENT, nullable=False),
    )
    op.create_table(
        "allowance_use",
        sa.Column("tenant_id", sa.Text, primary_key=True),
        sa.Column("replica", sa.Text, primary_key=True),
        sa.Column("api_key", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("used", sa.BigInteger, nullable=False),
        sa.Column("wanted", sa.BigInteger, nullable=False),
        sa.Column("first_at", MOMENT, nullable=False),
        sa.Column("last_at", MOMENT, nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("reserve", sa.Integer, nullable=False),
        sa.Column("granted", sa.BigInteger, nullable=False),
    )
