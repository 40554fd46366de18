"""Builds what the service and the command line share, from the settings."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ignition_broker.broker.admins.makers import Makers
from ignition_broker.broker.admins.single_sign_on import SingleSignOn
from ignition_broker.broker.callers.access import Access
from ignition_broker.broker.callers.failed_attempts import FailedAttempts
from ignition_broker.broker.change_feed import ChangeFeed
from ignition_broker.broker.grants.connect import Connector
from ignition_broker.broker.grants.held_grants import HeldGrants
from ignition_broker.broker.grants.identification import Identification
from ignition_broker.broker.grants.ignition_client import IgnitionClient
from ignition_broker.broker.grants.issue import Issuer
from ignition_broker.broker.grants.oauth_clients import OAuthClients
from ignition_broker.broker.grants.outcomes import OutcomeRecorder
from ignition_broker.broker.grants.read_repair import ReadRepair
from ignition_broker.broker.grants.refresh import Refresher
from ignition_broker.broker.grants.refresh_policy import RefreshPolicy
from ignition_broker.broker.grants.revocations import Revocations
from ignition_broker.broker.grants.row_repair import RowRepair
from ignition_broker.broker.grants.token_cache import TokenCache
from ignition_broker.broker.grants.wakeups import Wakeups
from ignition_broker.broker.provider_watch import ProviderWatch
from ignition_broker.broker.refresh_tally import RefreshTally
from ignition_broker.cipher import Cipher
from ignition_broker.clock import Clock
from ignition_broker.oauth.tokens import ClientSecret
from ignition_broker.outbound.egress import Egress
from ignition_broker.outbound.http1_pool import Pool
from ignition_broker.outbound.limits import Limits
from ignition_broker.outbound.upstream import Upstream
from ignition_broker.settings import Settings, fernet_keys
from ignition_broker.storage.database import Database
from ignition_broker.telemetry import Metrics
from ignition_broker.wiring_clients import oauth_client

if TYPE_CHECKING:
    from ignition_broker.broker.callers.workload_identity import WorkloadIdentities


@dataclass(frozen=True, slots=True)
class Parts:
    """What `serve` and the command line both work with."""

    access: Access
    cache: TokenCache
    cipher: Cipher
    clients: OAuthClients
    connector: Connector
    database: Database
    egress: Egress
    endpoints: IgnitionClient
    held_grants: HeldGrants
    identification: Identification
    change_feed: ChangeFeed
    issuer: Issuer
    makers: Makers
    wakeups: Wakeups
    refresher: Refresher
    revocations: Revocations
    repair: ReadRepair
    watches: tuple[ProviderWatch, ...]
    tally: RefreshTally


def assemble(settings: Settings, clock: Clock, metrics: Metrics) -> Parts:
    """Wires the parts, unconnected; the caller closes ``endpoints`` and ``database``."""
    cipher = Cipher(fernet_keys(settings.broker_encryption_keys))
    database = Database(settings.database_url.get_secret_value())
    egress = Egress(more_authorities=settings.broker_ca_file, proxies=settings.egress_proxies)
    endpoints = IgnitionClient(timeout_seconds=settings.broker_provider_timeout, egress=egress)
    watches: list[ProviderWatch] = []
    tally = RefreshTally(database, clock)
    clients = OAuthClients(
        {
            name: oauth_client(
                name, client, settings, endpoints, egress, database, watches, tally, clock, metrics
            )
            for name, client in settings.oauth_clients.items()
        }
    )
    change_feed = ChangeFeed(clock)
    cache = TokenCache(change_feed)
    wakeups = Wakeups()
    workloads = workload_identities(settings, clock, egress)
    makers = Makers(
        cipher,
        admin_key=bootstrap_admin_key(settings),
        admin_rules=[] if workloads is None else workloads.admin_rules(),
        issuer=settings.broker_oidc_issuer,
        admin_groups=settings.admin_groups,
    )
    policy = RefreshPolicy(settings.broker_refresh_lead, settings.broker_keepalive)
    revocations = Revocations(database, cipher, clients, clock)

    def on_went_back(outcome: str) -> None:
        metrics.database_went_back.labels(outcome).inc()

    rows = RowRepair(database, cipher, clock, revocations, on_went_back)
    repair = ReadRepair(
        database, rows, cache, clock, remember_seconds=settings.broker_remember_answers
    )
    refresher = Refresher(
        database,
        cipher,
        clients,
        cache,
        wakeups,
        clock,
        OutcomeRecorder(database, cipher, revocations, clock, policy, repair),
        repair,
        owner=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
    )
    access = Access(
        database,
        change_feed,
        clock,
        FailedAttempts(clock, limit=settings.broker_failed_attempts),
        workloads,
        admin_key=bootstrap_admin_key(settings),
    )
    held_grants = HeldGrants(database, cipher, policy, clock, revocations, repair)
    identification = Identification(
        database,
        cipher,
        clients,
        clock,
        revocations,
        held_grants,
        standing=makers.standing,
    )
    connector = Connector(
        database,
        cipher,
        clients,
        policy,
        clock,
        revocations,
        repair,
        standing=makers.standing,
        identification=identification,
    )
    return Parts(
        access=access,
        cache=cache,
        cipher=cipher,
        clients=clients,
        connector=connector,
        database=database,
        egress=egress,
        endpoints=endpoints,
        held_grants=held_grants,
        identification=identification,
        change_feed=change_feed,
        makers=makers,
        issuer=Issuer(database, cache, refresher, clock, lead_seconds=settings.broker_refresh_lead),
        wakeups=wakeups,
        refresher=refresher,
        revocations=revocations,
        repair=repair,
        watches=tuple(watches),
        tally=tally,
    )


def bootstrap_admin_key(settings: Settings) -> str | None:
    """``BROKER_ADMIN_KEY`` in clear; None where it is unset."""
    key = settings.broker_admin_key
    return key.get_secret_value() if key else None


def workload_identities(
    settings: Settings, clock: Clock, egress: Egress
) -> WorkloadIdentities | None:
    """Checks callers' JWTs; None where no issuer is trusted."""
    if not settings.broker_jwt_issuers:
        return None
    # Imported here, since a process that trusts no issuer starts faster without Authlib.
    from ignition_broker.broker.callers.workload_identity import WorkloadIdentities
    from ignition_broker.broker.callers.workload_issuers import parse_issuers

    return WorkloadIdentities(parse_issuers(settings.broker_jwt_issuers), clock, egress)


def single_sign_on(settings: Settings, parts: Parts, clock: Clock) -> SingleSignOn | None:
    """Signs admins on by OpenID Connect; None where no identity provider is set."""
    issuer, client_id = settings.broker_oidc_issuer, settings.broker_oidc_client_id
    secret = settings.broker_oidc_client_secret
    if issuer is None or client_id is None or secret is None:
        return None
    # Imported here for the same reason as in `workload_identities`.
    from ignition_broker.broker.admins.identity_provider import IdentityProvider, SignOnClient

    client = SignOnClient(
        issuer=issuer,
        client_id=client_id,
        client_secret=ClientSecret(secret.get_secret_value()),
        redirect_uri=f"{settings.public_origin}/login/oidc/callback",
        scope=settings.broker_oidc_scopes,
    )
    return SingleSignOn(
        parts.database,
        IdentityProvider(client, clock, parts.egress),
        clock,
        issuer=issuer,
        client_id=client_id,
        admin_groups=settings.admin_groups,
        groups_claim=settings.broker_oidc_groups_claim,
    )


def upstream(api_url: str, settings: Settings, egress: Egress) -> Upstream:
    """Sends proxied calls to Ignition's API, over HTTP/2 where the settings ask for it."""
    limits = Limits(
        connect_timeout_seconds=settings.broker_proxy_connect_timeout,
        timeout_seconds=settings.broker_proxy_timeout,
        idle_timeout_seconds=settings.broker_proxy_idle_timeout,
        connections=settings.broker_proxy_connections,
        # A tenant can use no more of them at once.
        idle_per_tenant=settings.broker_proxy_tenant_concurrency,
    )
    if settings.broker_proxy_http2:
        # Imported here, since httpcore's HTTP/2 is slow to import and off by default.
        from ignition_broker.outbound.http2 import Http2Upstream

        return Http2Upstream(api_url, limits, egress)
    return Pool(api_url, limits, egress=egress)
