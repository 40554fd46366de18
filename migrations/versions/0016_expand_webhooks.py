"""Events for the outside, and where they are delivered.

Triggers on `grants` write the events, so that each is committed with its change whoever makes it,
replicas of the release before included. An ordinary refresh fires none: their conditions are false.
docs/decisions/0015-outbox.md says why it is done so.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)

# Where the end of the refresh token has not moved since the connect, renewing does not move it.
NOTE_FIRST_END = """
CREATE FUNCTION grants_note_first_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.refresh_token_first_end = NEW.refresh_token_expires_at;
    NEW.lapse_warned_for = NULL;
    RETURN NEW;
END
$$
"""

ANNOUNCE = """
CREATE FUNCTION grants_announce() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR NEW.status IS DISTINCT FROM OLD.status
       OR NEW.connected_at IS DISTINCT FROM OLD.connected_at
    THEN
        INSERT INTO outbox_events (type, tenant_id, status, reason)
        VALUES ('tenant.' || NEW.status, NEW.tenant_id, NEW.status,
            CASE WHEN NEW.status = 'reauthorization_required' THEN NEW.last_error END);
    ELSIF NEW.end_warned_version IS DISTINCT FROM OLD.end_warned_version
       AND NEW.end_warned_version IS NOT NULL
    THEN
        INSERT INTO outbox_events (type, tenant_id, status, reason, ends_at)
        VALUES ('tenant.ending_soon', NEW.tenant_id, NEW.status,
            'Ignition gave no refresh token, so the grant ends with its access token',
            NEW.expires_at);
    ELSIF NEW.lapse_warned_for IS DISTINCT FROM OLD.lapse_warned_for
       AND NEW.lapse_warned_for IS NOT NULL
    THEN
        INSERT INTO outbox_events (type, tenant_id, status, reason, ends_at)
        VALUES ('tenant.ending_soon', NEW.tenant_id, NEW.status,
            'the refresh token ends then, and renewing does not move its end',
            NEW.refresh_token_expires_at);
    END IF;
    RETURN NULL;
END
$$
"""


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column(
            "id",
            sa.Text,
            primary_key=True,
            server_default=sa.text("'wh_' || left(replace(gen_random_uuid()::text, '-', ''), 20)"),
        ),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("target", sa.LargeBinary),
        sa.Column("shown", sa.Text, nullable=False),
        sa.Column("secret", sa.LargeBinary),
        sa.Column("previous_secret", sa.LargeBinary),
        sa.Column("previous_until", MOMENT),
        sa.Column("types", ARRAY(sa.Text)),
        sa.Column("created_at", MOMENT, nullable=False, server_default=sa.func.now()),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("affirmed_at", MOMENT),
        sa.Column("last_sent_at", MOMENT),
    )
    op.create_table(
        "outbox_events",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column(
            "event_id",
            sa.Text,
            nullable=False,
            unique=True,
            server_default=sa.text("'evt_' || replace(gen_random_uuid()::text, '-', '')"),
        ),
        sa.Column("at", MOMENT, nullable=False, server_default=sa.func.now()),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("tenant_id", sa.Text),
        sa.Column("client", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("ends_at", MOMENT),
        sa.Column("webhook_id", sa.Text),
        sa.Column("position", sa.BigInteger, unique=True),
    )
    op.create_index(
        "outbox_events_unplaced",
        "outbox_events",
        ["id"],
        postgresql_where=sa.text("position IS NULL"),
    )
    op.create_index("outbox_events_at", "outbox_events", ["at"])
    op.create_table(
        "outbox_turn",
        sa.Column("only_row", sa.Boolean, primary_key=True),
        sa.Column("last_position", sa.BigInteger, nullable=False),
    )
    op.execute("INSERT INTO outbox_turn (only_row, last_position) VALUES (true, 0)")
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column(
            "event_id",
            sa.BigInteger,
            sa.ForeignKey("outbox_events.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column(
            "webhook_id",
            sa.Text,
            sa.ForeignKey("webhooks.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("ordered_by", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False, server_default="waiting"),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("next_try_at", MOMENT, nullable=False, server_default=sa.func.now()),
        sa.Column("lease_owner", sa.Text),
        sa.Column("lease_until", MOMENT),
        sa.Column("begun_at", MOMENT, nullable=False, server_default=sa.func.now()),
        sa.Column("tried_at", MOMENT),
        sa.Column("settled_at", MOMENT),
        sa.Column("http_status", sa.Integer),
        sa.Column("error", sa.Text),
    )
    op.create_index(
        "webhook_deliveries_due",
        "webhook_deliveries",
        ["next_try_at"],
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_index(
        "webhook_deliveries_order",
        "webhook_deliveries",
        ["webhook_id", "ordered_by", "event_id"],
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_index("webhook_deliveries_log", "webhook_deliveries", ["webhook_id", "id"])
    op.create_index("webhook_deliveries_event", "webhook_deliveries", ["event_id"])
    op.create_table(
        "conditions",
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("is_met", sa.Boolean, nullable=False),
        sa.Column("changed_at", MOMENT, nullable=False, server_default=sa.func.now()),
        sa.Column("seen_at", MOMENT, nullable=False, server_default=sa.func.now()),
    )
    op.add_column("grants", sa.Column("refresh_token_first_end", MOMENT))
    op.add_column("grants", sa.Column("lapse_warned_for", MOMENT))
    op.create_index(
        "grants_lapsing",
        "grants",
        ["refresh_token_expires_at"],
        postgresql_where=sa.text(
            "status = 'connected' AND refresh_token_expires_at - refresh_token_first_end "
            "< interval '60 seconds'"
        ),
    )
    op.execute(NOTE_FIRST_END)
    op.execute(ANNOUNCE)
    op.execute(
        "CREATE TRIGGER grants_note_first_end BEFORE INSERT ON grants "
        "FOR EACH ROW EXECUTE FUNCTION grants_note_first_end()"
    )
    op.execute(
        "CREATE TRIGGER grants_note_next_first_end BEFORE UPDATE ON grants FOR EACH ROW "
        "WHEN (OLD.connected_at IS DISTINCT FROM NEW.connected_at) "
        "EXECUTE FUNCTION grants_note_first_end()"
    )
    op.execute(
        "CREATE TRIGGER grants_announce_first AFTER INSERT ON grants FOR EACH ROW "
        "WHEN (NEW.connected_at IS NOT NULL) EXECUTE FUNCTION grants_announce()"
    )
    op.execute(
        "CREATE TRIGGER grants_announce AFTER UPDATE ON grants FOR EACH ROW "
        "WHEN (OLD.status IS DISTINCT FROM NEW.status "
        "OR OLD.connected_at IS DISTINCT FROM NEW.connected_at "
        "OR OLD.end_warned_version IS DISTINCT FROM NEW.end_warned_version "
        "OR OLD.lapse_warned_for IS DISTINCT FROM NEW.lapse_warned_for) "
        "EXECUTE FUNCTION grants_announce()"
    )
