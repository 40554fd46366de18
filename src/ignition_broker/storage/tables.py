"""The tables as the newest migration leaves them. `migrations/` creates them.

Over 250 lines: one test compares them all with the migrations.
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Computed,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from ignition_broker.storage.grant_columns import IS_OF_OTHER_CLIENT, OTHER_CLIENT
from ignition_broker.storage.key_notes import CIPHERTEXT_END

metadata = MetaData()

_moment = DateTime(timezone=True)

tenants = Table(
    "tenants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", _moment, nullable=False, server_default=func.now()),
    # Every connect and disconnect raises it; links and sign-ins of an older one no longer work.
    Column("generation", BigInteger, nullable=False, server_default="0"),
    # The id is that of a grant (`ignition_broker.grant_ids`), which these two are read off.
    Column("tenant", Text, Computed("split_part(id, '@', 1)", persisted=True)),
    Column(
        "client",
        Text,
        Computed("coalesce(nullif(split_part(id, '@', 2), ''), 'default')", persisted=True),
    ),
    Column("name", Text),
    # NULL: none.
    Column("labels", JSONB),
    # The account of the connection that was made then; known only if the grant's connected_at is
    # the same.
    Column("account_id", Text),
    Column("account_name", Text),
    Column("account_connected_at", _moment),
    # Kept true by triggers on grants.
    Column("has_grant", Boolean, nullable=False, server_default=false()),
)
Index(
    "tenants_without_grant",
    tenants.c.tenant,
    tenants.c.client,
    postgresql_where=~tenants.c.has_grant,
)
Index(
    "tenants_labels",
    tenants.c.labels,
    postgresql_using="gin",
    postgresql_ops={"labels": "jsonb_path_ops"},
    postgresql_where=tenants.c.labels.is_not(None),
)
Index(
    "tenants_account",
    tenants.c.account_id,
    tenants.c.id,
    postgresql_where=tenants.c.account_id.is_not(None),
)
Index("tenants_tenant_client", tenants.c.tenant, tenants.c.client, unique=True)
Index("tenants_begin", tenants.c.tenant, postgresql_ops={"tenant": "text_pattern_ops"})
Index(
    "tenants_name_begin",
    func.lower(tenants.c.name).label("lower_name"),
    postgresql_ops={"lower_name": "text_pattern_ops"},
    postgresql_where=tenants.c.name.is_not(None),
)

grants = Table(
    "grants",
    metadata,
    Column("tenant_id", Text, ForeignKey("tenants.id"), primary_key=True),
    Column("status", Text, nullable=False),
    Column("access_token", LargeBinary),
    Column("refresh_token", LargeBinary),
    Column("token_type", Text),
    Column("scope", Text),
    Column("expires_at", _moment),
    Column("issued_at", _moment),
    Column("connected_at", _moment),
    Column("refreshed_at", _moment),
    Column("version", BigInteger, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", _moment),
    Column("refresh_started_at", _moment),
    Column("next_refresh_at", _moment),
    Column("used_at", _moment),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("last_error", Text),
    Column("early_renewals", Integer, nullable=False, server_default="0"),
    # If it equals the last 8 bytes of refresh_token, that is an encrypted empty string.
    Column("empty_refresh_token", LargeBinary),
    Column("end_warned_version", BigInteger),
    Column("refresh_token_expires_at", _moment),
    # Which key encrypted the tokens. Valid only if fingerprinted equals the last 8 bytes of
    # access_token; if not, a release that knows neither column has stored other tokens since.
    Column("key_fingerprint", Text),
    Column("fingerprinted", LargeBinary),
    # Filled by a trigger at each connect: the end of the first refresh token.
    Column("refresh_token_first_end", _moment),
    Column("lapse_warned_for", _moment),
)
Index(
    "grants_lapsing",
    grants.c.refresh_token_expires_at,
    postgresql_where=text(
        "status = 'connected' AND refresh_token_expires_at - refresh_token_first_end "
        "< interval '60 seconds'"
    ),
)
Index(
    "grants_ended",
    grants.c.tenant_id,
    postgresql_where=text("status = 'reauthorization_required'"),
)
Index(
    "grants_disconnected",
    grants.c.tenant_id,
    postgresql_where=grants.c.status == "disconnected",
)
Index("grants_due", grants.c.next_refresh_at, postgresql_where=grants.c.status == "connected")
# Without it, the search for what is due of another client than the default would pass over all that
# is due of the default client: many rows while that one's Ignition is down.
Index(
    "grants_due_of_others",
    text(OTHER_CLIENT),
    grants.c.next_refresh_at,
    postgresql_where=text(f"status = 'connected' AND {IS_OF_OTHER_CLIENT}"),
)
Index(
    "grants_key_noted",
    grants.c.key_fingerprint,
    postgresql_where=text(f"fingerprinted = {CIPHERTEXT_END}"),
)
Index(
    "grants_key_unnoted",
    grants.c.tenant_id,
    postgresql_where=text(
        f"access_token IS NOT NULL AND fingerprinted IS DISTINCT FROM {CIPHERTEXT_END}"
    ),
)

Index(
    "grants_unrenewable",
    grants.c.expires_at,
    postgresql_where=text("status = 'connected' AND empty_refresh_token IS NOT NULL"),
)

authorizations = Table(
    "authorizations",
    metadata,
    Column("state_hash", LargeBinary, primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False),
    Column("code_verifier", LargeBinary, nullable=False),
    Column("browser_hash", LargeBinary, nullable=False),
    Column("expires_at", _moment, nullable=False),
    Column("actor", Text, nullable=False),
    Column("return_to", Text),
    # NULL if the release that wrote the row knew neither generations nor makers.
    Column("generation", BigInteger),
    Column("made_by_key", LargeBinary),
    Column("made_by_setting", LargeBinary),
    Column("made_by_session", LargeBinary),
    Column("link_id", Text),
)
Index("authorizations_expiry", authorizations.c.expires_at)

callbacks = Table(
    "callbacks",
    metadata,
    Column("state_hash", LargeBinary, primary_key=True),
    Column("browser_hash", LargeBinary, nullable=False),
    Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False),
    Column("generation", BigInteger),
    Column("made_by_key", LargeBinary),
    Column("made_by_setting", LargeBinary),
    Column("made_by_session", LargeBinary),
    Column("link_id", Text),
    Column("taken_at", _moment, nullable=False, server_default=func.now()),
    Column("connected_at", _moment),
    Column("connected_generation", BigInteger),
    Column("scope", Text),
    Column("expires_at", _moment),
    Column("warning", Text),
)
Index("callbacks_taken", callbacks.c.taken_at)

connect_links = Table(
    "connect_links",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False),
    Column("expires_at", _moment, nullable=False),
    Column("used_at", _moment),
    Column("created_by", Text, nullable=False),
    Column("id", Text, nullable=False, server_default=text("left(gen_random_uuid()::text, 13)")),
    Column("revoked_at", _moment),
    Column("generation", BigInteger),
    Column("made_by_key", LargeBinary),
    Column("made_by_setting", LargeBinary),
    Column("made_by_session", LargeBinary),
    Column("return_to", Text),
)
Index("connect_links_expiry", connect_links.c.expires_at)
Index("connect_links_tenant", connect_links.c.tenant_id, connect_links.c.id, unique=True)

api_keys = Table(
    "api_keys",
    metadata,
    Column("name", Text, primary_key=True),
    Column("key_hash", LargeBinary, nullable=False, unique=True),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("tenants", ARRAY(Text), nullable=False),
    Column("created_at", _moment, nullable=False, server_default=func.now()),
    Column("expires_at", _moment),
    Column("revoked_at", _moment),
    Column("last_used_at", _moment),
    Column("paths", ARRAY(Text)),
    Column("allowance_weight", Integer, nullable=False, server_default="1"),
    Column("allowance_reserve", Integer, nullable=False, server_default="0"),
    # NULL if the release that made the key did not note it.
    Column("created_by", Text),
)

api_key_predecessors = Table(
    "api_key_predecessors",
    metadata,
    Column("key_hash", LargeBinary, primary_key=True),
    Column("name", Text, ForeignKey("api_keys.name"), nullable=False),
    Column("replaced_at", _moment, nullable=False),
    Column("expires_at", _moment, nullable=False),
)
Index("api_key_predecessors_name", api_key_predecessors.c.name)

audit_events = Table(
    "audit_events",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", _moment, nullable=False, server_default=func.now()),
    Column("tenant_id", Text),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("request_id", Text),
    Column("detail", JSONB, nullable=False, server_default="{}"),
    # A trigger fills these; NULL in events from before it.
    Column("chain", Integer),
    Column("position", BigInteger),
    Column("hash", LargeBinary),
)
Index("audit_events_tenant", audit_events.c.tenant_id, audit_events.c.id)

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("actor", Text, nullable=False),
    Column("key_hash", LargeBinary),
    Column("issuer", Text),
    Column("groups", ARRAY(Text)),
    Column("sign_on_hash", LargeBinary, unique=True),
    Column("begun_at", _moment, nullable=False, server_default=func.now()),
    Column("seen_at", _moment, nullable=False, server_default=func.now()),
    Column("authenticated_at", _moment),
    Column("ended_at", _moment),
)
Index("sessions_begun", sessions.c.begun_at)
Index("audit_events_chain", audit_events.c.chain, audit_events.c.position, unique=True)
Index("audit_events_at", audit_events.c.at, audit_events.c.id)

audit_chains = Table(
    "audit_chains",
    metadata,
    Column("chain", Integer, primary_key=True, autoincrement=False),
    Column("pruned_position", BigInteger, nullable=False, server_default="0"),
    Column("pruned_hash", LargeBinary, nullable=False, server_default=""),
)

pending_revocations = Table(
    "pending_revocations",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("token", LargeBinary, nullable=False),
    Column("token_kind", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("request_id", Text),
    Column("requested_at", _moment, nullable=False, server_default=func.now()),
    Column("next_try_at", _moment, nullable=False),
    Column("tries", Integer, nullable=False, server_default="0"),
)
Index("pending_revocations_due", pending_revocations.c.next_try_at)

held_grants = Table(
    "held_grants",
    metadata,
    Column("tenant_id", Text, ForeignKey("tenants.id"), primary_key=True),
    # Of the sign-in that brought the tokens.
    Column("state_hash", LargeBinary, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("access_token", LargeBinary, nullable=False),
    Column("refresh_token", LargeBinary, nullable=False),
    Column("key_fingerprint", Text, nullable=False),
    Column("token_type", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("has_refresh_token", Boolean, nullable=False),
    Column("lifetime_seconds", Float, nullable=False),
    Column("refresh_lifetime_seconds", Float),
    Column("requested_at", _moment, nullable=False),
    Column("actor", Text, nullable=False),
    Column("request_id", Text),
    Column("warning", Text),
    # NULL: not asked yet.
    Column("account_id", Text),
    Column("account_name", Text),
    Column("next_try_at", _moment, nullable=False),
    Column("expires_at", _moment, nullable=False),
)
Index("held_grants_due", held_grants.c.next_try_at)

audit_heads = Table(
    "audit_heads",
    metadata,
    Column("chain", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column(
        "id",
        Text,
        primary_key=True,
        server_default=text("'wh_' || left(replace(gen_random_uuid()::text, '-', ''), 20)"),
    ),
    Column("kind", Text, nullable=False),
    # NULL if the destination comes from the settings, which hold its URL and secrets.
    Column("target", LargeBinary),
    Column("shown", Text, nullable=False),
    Column("secret", LargeBinary),
    Column("previous_secret", LargeBinary),
    Column("previous_until", _moment),
    Column("types", ARRAY(Text)),
    Column("created_at", _moment, nullable=False, server_default=func.now()),
    Column("created_by", Text, nullable=False),
    # When a replica last found the destination in its settings.
    Column("affirmed_at", _moment),
    Column("last_sent_at", _moment),
)

# Triggers on grants fill it (migrations/versions/0016_expand_webhooks.py).
outbox_events = Table(
    "outbox_events",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column(
        "event_id",
        Text,
        nullable=False,
        unique=True,
        server_default=text("'evt_' || replace(gen_random_uuid()::text, '-', '')"),
    ),
    Column("at", _moment, nullable=False, server_default=func.now()),
    Column("type", Text, nullable=False),
    Column("tenant_id", Text),
    Column("client", Text),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("ends_at", _moment),
    # NULL: for every destination.
    Column("webhook_id", Text),
    # In the order in which events became visible; NULL until the event's deliveries are made.
    Column("position", BigInteger, unique=True),
)
Index(
    "outbox_events_unplaced",
    outbox_events.c.id,
    postgresql_where=outbox_events.c.position.is_(None),
)
Index("outbox_events_at", outbox_events.c.at)

outbox_turn = Table(
    "outbox_turn",
    metadata,
    Column("only_row", Boolean, primary_key=True),
    Column("last_position", BigInteger, nullable=False),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column(
        "event_id", BigInteger, ForeignKey("outbox_events.id", ondelete="CASCADE"), nullable=False
    ),
    Column("webhook_id", Text, ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    Column("ordered_by", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="waiting"),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("next_try_at", _moment, nullable=False, server_default=func.now()),
    Column("lease_owner", Text),
    Column("lease_until", _moment),
    Column("begun_at", _moment, nullable=False, server_default=func.now()),
    Column("tried_at", _moment),
    Column("settled_at", _moment),
    Column("http_status", Integer),
    Column("error", Text),
)
_waiting = webhook_deliveries.c.state == "waiting"
Index("webhook_deliveries_due", webhook_deliveries.c.next_try_at, postgresql_where=_waiting)
Index(
    "webhook_deliveries_order",
    webhook_deliveries.c.webhook_id,
    webhook_deliveries.c.ordered_by,
    webhook_deliveries.c.event_id,
    postgresql_where=_waiting,
)
Index("webhook_deliveries_log", webhook_deliveries.c.webhook_id, webhook_deliveries.c.id)
Index("webhook_deliveries_event", webhook_deliveries.c.event_id)

conditions = Table(
    "conditions",
    metadata,
    Column("subject", Text, primary_key=True),
    Column("is_met", Boolean, nullable=False),
    Column("changed_at", _moment, nullable=False, server_default=func.now()),
    Column("seen_at", _moment, nullable=False, server_default=func.now()),
)

refresh_hours = Table(
    "refresh_hours",
    metadata,
    Column("hour", _moment, primary_key=True),
    Column("client", Text, primary_key=True),
    Column("outcome", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
)

allowance_windows = Table(
    "allowance_windows",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("started_at", _moment, nullable=False),
    Column("ends_at", _moment, nullable=False),
    Column("calls", BigInteger, nullable=False),
    Column("end_is_told", Boolean, nullable=False),
    Column("counted", BigInteger),
    Column("counted_at", _moment),
    Column("others", BigInteger, nullable=False, server_default="0"),
    Column("tells", Boolean),
    Column("spent_until", _moment),
    Column("past", JSONB, nullable=False, server_default="{}"),
)

allowance_leases = Table(
    "allowance_leases",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("replica", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("spare", BigInteger, nullable=False),
    Column("in_flight", BigInteger, nullable=False),
    Column("carried", BigInteger, nullable=False),
    Column("lease_until", _moment, nullable=False),
)

allowance_use = Table(
    "allowance_use",
    metadata,
    Column("tenant_id", Text, primary_key=True),
    Column("replica", Text, primary_key=True),
    Column("api_key", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=False),
    Column("wanted", BigInteger, nullable=False),
    Column("first_at", _moment, nullable=False),
    Column("last_at", _moment, nullable=False),
    Column("weight", Integer, nullable=False),
    Column("reserve", Integer, nullable=False),
    Column("granted", BigInteger, nullable=False),
)
