"""The tables as the newest migration leaves them. `migrations/` creates them."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

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
)
Index("grants_due", grants.c.next_refresh_at, postgresql_where=grants.c.status == "connected")
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

audit_heads = Table(
    "audit_heads",
    metadata,
    Column("chain", Integer, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
)
