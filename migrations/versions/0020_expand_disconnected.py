"""The list of the disconnected tenants is read by index.

Those are the tenants whose grant says so, and those that have no grant yet, such as one whose
connect link nobody has used. An index of ``grants`` knows nothing of the latter, so ``tenants``
says of each whether it has a grant. Triggers keep that true, whichever release adds the grant.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

# By statement, and for rows that were inserted or deleted alone: a refresh never gets here. A
# connect has locked the tenant before, so this waits for nobody.
_NOTE = """
CREATE FUNCTION grants_note_whether() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE tenants SET has_grant = (TG_OP = 'INSERT')
    FROM changed
    WHERE tenants.id = changed.tenant_id AND tenants.has_grant <> (TG_OP = 'INSERT');
    RETURN NULL;
END
$$
"""


def upgrade() -> None:
    # Existing tenants read as true without being written: most have a grant.
    op.add_column(
        "tenants",
        sa.Column("has_grant", sa.Boolean, nullable=False, server_default=sa.true()),
    )
    op.execute(
        "UPDATE tenants SET has_grant = false "
        "WHERE NOT EXISTS (SELECT FROM grants WHERE grants.tenant_id = tenants.id)"
    )
    op.alter_column("tenants", "has_grant", server_default=sa.false())
    op.execute(_NOTE)
    op.execute(
        "CREATE TRIGGER grants_note_new AFTER INSERT ON grants "
        "REFERENCING NEW TABLE AS changed FOR EACH STATEMENT "
        "EXECUTE FUNCTION grants_note_whether()"
    )
    op.execute(
        "CREATE TRIGGER grants_note_deleted AFTER DELETE ON grants "
        "REFERENCING OLD TABLE AS changed FOR EACH STATEMENT "
        "EXECUTE FUNCTION grants_note_whether()"
    )
    op.create_index(
        "tenants_without_grant",
        "tenants",
        ["tenant", "client"],
        postgresql_where=sa.text("NOT has_grant"),
    )
    op.create_index(
        "grants_disconnected",
        "grants",
        ["tenant_id"],
        postgresql_where=sa.text("status = 'disconnected'"),
    )
