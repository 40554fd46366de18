"""Audit events are chained by a trigger, so that replicas of the release before chain theirs too.

Events from before have no chain. docs/decisions/0008-audit-chain.md says why it is done so.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

CHAINS = 64

# A chain is taken by a row lock that lasts until the commit, so that each has one writer at a time
# and a rolled back event leaves no gap. Whoever finds one taken takes the next and waits for none;
# only where all are taken it waits. What was cut off behind the head stays missed: the next event
# goes on from the head.
CHAIN_EVENT = """
CREATE FUNCTION audit_events_chain() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    previous record;
BEGIN
    SELECT chain INTO NEW.chain FROM audit_chains ORDER BY chain LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF NEW.chain IS NULL THEN
        SELECT chain INTO NEW.chain FROM audit_chains
        WHERE chain = 1 + pg_backend_pid() % (SELECT count(*) FROM audit_chains) FOR UPDATE;
    END IF;
    IF NEW.chain IS NULL THEN
        RETURN NEW;
    END IF;
    SELECT position, hash INTO previous FROM audit_heads
    WHERE chain = NEW.chain ORDER BY position DESC LIMIT 1;
    IF NOT FOUND THEN
        SELECT position, hash INTO previous FROM audit_events
        WHERE chain = NEW.chain ORDER BY position DESC LIMIT 1;
    END IF;
    IF NOT FOUND THEN
        SELECT pruned_position AS position, pruned_hash AS hash INTO previous
        FROM audit_chains WHERE chain = NEW.chain;
    END IF;
    NEW.position = previous.position + 1;
    NEW.hash = sha256(previous.hash || convert_to(CAST(jsonb_build_array(
        NEW.chain, NEW.position, NEW.id, CAST(extract(epoch FROM NEW.at) * 1000000 AS bigint),
        NEW.tenant_id, NEW.actor, NEW.action, NEW.outcome, NEW.request_id, NEW.detail
    ) AS text), 'UTF8'));
    INSERT INTO audit_heads (chain, position, hash) VALUES (NEW.chain, NEW.position, NEW.hash);
    RETURN NEW;
END
$$
"""


def upgrade() -> None:
    op.create_table(
        "audit_chains",
        sa.Column("chain", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("pruned_position", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("pruned_hash", sa.LargeBinary, nullable=False, server_default=""),
    )
    op.execute(f"INSERT INTO audit_chains (chain) SELECT generate_series(1, {CHAINS})")
    op.create_table(
        "audit_heads",
        sa.Column("chain", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
    )
    op.add_column("audit_events", sa.Column("chain", sa.Integer))
    op.add_column("audit_events", sa.Column("position", sa.BigInteger))
    op.add_column("audit_events", sa.Column("hash", sa.LargeBinary))
    op.create_index("audit_events_chain", "audit_events", ["chain", "position"], unique=True)
    op.create_index("audit_events_at", "audit_events", ["at", "id"])
    op.execute(CHAIN_EVENT)
    op.execute(
        "CREATE TRIGGER audit_events_chain BEFORE INSERT ON audit_events "
        "FOR EACH ROW EXECUTE FUNCTION audit_events_chain()"
    )
