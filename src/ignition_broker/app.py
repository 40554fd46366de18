"""The one place where things are wired."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.types import ASGIApp

from ignition_broker import __version__
from ignition_broker.broker.admins.bootstrap import BootstrapMarks
from ignition_broker.broker.admins.makers import Makers
from ignition_broker.broker.admins.sessions import AdminSessions
from ignition_broker.broker.admins.single_sign_on import SingleSignOn
from ignition_broker.broker.audit.recorder import Journal
from ignition_broker.broker.background import BackgroundRefresher
from ignition_broker.broker.callers.access import Access
from ignition_broker.broker.callers.failed_attempts import Attempts
from ignition_broker.broker.change_feed import ChangeFeed
from ignition_broker.broker.encryption_keys.inventory import KeyCheck
from ignition_broker.broker.grants.circuit_breaker import CircuitBreaker
from ignition_broker.broker.grants.connect import Connector
from ignition_broker.broker.grants.endpoints import HttpEndpoints
from ignition_broker.broker.grants.issue import Issuer
from ignition_broker.broker.grants.outcomes import OutcomeRecorder, RefreshPolicy
from ignition_broker.broker.grants.provider import Provider, Registration
from ignition_broker.broker.grants.read_repair import ReadRepair
from ignition_broker.broker.grants.refresh import Refresher
from ignition_broker.broker.grants.revocations import Revocations
from ignition_broker.broker.grants.row_repair import RowRepair
from ignition_broker.broker.grants.token_cache import TokenCache
from ignition_broker.broker.grants.unrenewable import UnrenewableWatcher
from ignition_broker.broker.grants.wakeups import Wakeups
from ignition_broker.cipher import Cipher
from ignition_broker.clock import Clock, SystemClock
from ignition_broker.model import GrantStatus
from ignition_broker.oauth.requests import client_secret_basic, client_secret_post
from ignition_broker.oauth.tokens import ClientSecret
from ignition_broker.outbound.http1_pool import Limits, Pool
from ignition_broker.outbound.upstream import Upstream
from ignition_broker.proxy.forward import Forwarder
from ignition_broker.server.stop_state import STATE_KEY, Stopping
from ignition_broker.settings import Settings, fernet_keys, load_settings
from ignition_broker.storage.database import Database
from ignition_broker.storage.listen import Listener
from ignition_broker.storage.notifications import (
    API_KEYS_CHANNEL,
    REVOKED_KEYS_CHANNEL,
    GrantChange,
    KeyRevocation,
)
from ignition_broker.storage.schema import newest_version
from ignition_broker.telemetry import Metrics, configure_logging
from ignition_broker.web import admin, docs, documented_routes, errors, health
from ignition_broker.web.body_limit import BodyLimit
from ignition_broker.web.browser_sessions import Sessions
from ignition_broker.web.console import api_key_pages, pages, sign_in
from ignition_broker.web.head_requests import HeadRequests
from ignition_broker.web.middleware import RequestEnvelope, RequestIds
from ignition_broker.web.openapi import DocumentedApp
from ignition_broker.web.operations_port import OperationsPort
from ignition_broker.web.own_origin import OwnOrigin
from ignition_broker.web.path_spelling import PlainPaths
from ignition_broker.web.proxy_route import ProxyRoute
from ignition_broker.web.services import Services
from ignition_broker.web.token_routes import HotPath

if TYPE_CHECKING:
    from ignition_broker.broker.callers.workload_identity import WorkloadIdentities

COLLECT_AT = 50_000
"""How many more objects were made than freed when the collector next looks for cycles. With
Python's own 700, it looks at all objects of two thousand calls under way every few calls."""
SHUTDOWN_STORE_SECONDS = 5.0
"""At least so long may a refresh in flight take to be stored, behind the grace if need be."""


def application() -> ASGIApp:
    """For uvicorn: settings from the environment."""
    settings = load_settings(Settings)
    configure_logging(
        settings.broker_log_level, settings.broker_log_format, secrets=settings.secrets()
    )
    return create_app(settings)


def registration(settings: Settings) -> Registration:
    methods = {
        "client_secret_post": client_secret_post,
        "client_secret_basic": client_secret_basic,
    }
    secret = ClientSecret(settings.ignition_client_secret.get_secret_value())
    return Registration(
        client_id=settings.ignition_client_id,
        redirect_uri=settings.redirect_uri,
        scope=settings.ignition_scopes,
        authorize_url=settings.ignition_authorize_url,
        token_url=settings.ignition_token_url,
        revoke_url=settings.ignition_revoke_url,
        client_secret=secret,
        authenticate=methods[settings.ignition_client_auth](settings.ignition_client_id, secret),
        body_format=settings.ignition_token_format,
        refusal_codes=settings.refusal_codes,
    )


@dataclass(frozen=True, slots=True)
class Parts:
    """What `serve` and the command line both work with."""

    access: Access
    breaker: CircuitBreaker
    cache: TokenCache
    cipher: Cipher
    connector: Connector
    database: Database
    endpoints: HttpEndpoints
    change_feed: ChangeFeed
    issuer: Issuer
    makers: Makers
    wakeups: Wakeups
    refresher: Refresher
    revocations: Revocations
    repair: ReadRepair


def assemble(settings: Settings, clock: Clock, metrics: Metrics) -> Parts:
    """Nothing is connected yet; whoever assembles closes ``endpoints`` and ``database``."""
    cipher = Cipher(fernet_keys(settings.broker_encryption_keys))
    database = Database(settings.database_url.get_secret_value())
    admin_key = settings.broker_admin_key
    endpoints = HttpEndpoints(timeout_seconds=settings.broker_provider_timeout)

    def observe(kind: str, outcome: str, seconds: float) -> None:
        metrics.provider_requests.labels(kind, outcome).observe(seconds)

    breaker = CircuitBreaker(clock, probe_seconds=settings.broker_provider_timeout)
    provider = Provider(
        endpoints,
        registration(settings),
        clock,
        breaker,
        timeout_seconds=settings.broker_provider_timeout,
        patience_seconds=settings.provider_patience,
        observe=observe,
    )
    change_feed = ChangeFeed(clock)
    cache = TokenCache(change_feed)
    wakeups = Wakeups()
    workloads = workload_identities(settings, clock)
    makers = Makers(
        cipher,
        admin_key=admin_key.get_secret_value() if admin_key else None,
        admin_rules=[] if workloads is None else workloads.admin_rules(),
        issuer=settings.broker_oidc_issuer,
        admin_groups=settings.admin_groups,
    )
    policy = RefreshPolicy(settings.broker_refresh_lead, settings.broker_keepalive)
    revocations = Revocations(database, cipher, provider, clock)

    def on_went_back(outcome: str) -> None:
        metrics.database_went_back.labels(outcome).inc()

    repair = ReadRepair(
        database,
        RowRepair(database, cipher, clock, revocations, on_went_back),
        cache,
        clock,
        remember_seconds=settings.broker_remember_answers,
    )
    refresher = Refresher(
        database,
        cipher,
        provider,
        breaker,
        cache,
        wakeups,
        clock,
        OutcomeRecorder(database, cipher, revocations, clock, policy, repair),
        repair,
        owner=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
    )
    return Parts(
        access=Access(
            database,
            change_feed,
            clock,
            Attempts(clock, limit=settings.broker_failed_attempts),
            workloads,
            admin_key=admin_key.get_secret_value() if admin_key else None,
        ),
        breaker=breaker,
        cache=cache,
        cipher=cipher,
        connector=Connector(
            database,
            cipher,
            provider,
            policy,
            clock,
            revocations,
            repair,
            requested_scope=settings.ignition_scopes,
            expected_issuer=settings.ignition_issuer,
            standing=makers.standing,
        ),
        database=database,
        endpoints=endpoints,
        change_feed=change_feed,
        makers=makers,
        issuer=Issuer(database, cache, refresher, clock, lead_seconds=settings.broker_refresh_lead),
        wakeups=wakeups,
        refresher=refresher,
        revocations=revocations,
        repair=repair,
    )


def create_app(settings: Settings, *, clock: Clock | None = None) -> ASGIApp:
    """The service; its connections are opened when its lifespan begins."""
    clock = clock or SystemClock()
    metrics = Metrics()
    parts = assemble(settings, clock, metrics)
    access, cache, change_feed = parts.access, parts.cache, parts.change_feed
    admin_key = settings.broker_admin_key
    metrics.cached_tokens.set_function(lambda: len(cache))
    metrics.remembered_answers.set_function(lambda: len(parts.repair))
    metrics.late_token_requests.set_function(lambda: parts.endpoints.late_requests)
    metrics.is_listening.set_function(lambda: float(change_feed.is_trusted))
    journal = Journal(
        parts.database,
        clock,
        is_strict=settings.broker_audit_strict,
        on_lost=metrics.audit_events_lost.inc,
    )
    schedule = BackgroundRefresher(
        parts.database,
        parts.cipher,
        parts.breaker,
        parts.refresher,
        parts.issuer,
        access,
        clock,
        rate=settings.broker_refresh_rate,
        audit_retention_days=settings.broker_audit_retention,
    )

    endings = UnrenewableWatcher(parts.database, clock, on_ending=metrics.grants_ending_soon.inc)

    def on_notice(channel: str, payload: str) -> None:
        if channel == REVOKED_KEYS_CHANNEL:
            revoked = KeyRevocation.parse(payload)
            parts.repair.note_revocation(revoked.name, revoked.created_at_us)
            return
        if channel == API_KEYS_CHANNEL:
            access.forget(payload)
            return
        change = GrantChange.parse(payload)
        if change.status is GrantStatus.CONNECTED:
            cache.drop_older(change.tenant, change.version)
        else:
            cache.forget(change.tenant)
        parts.repair.note_change(change.tenant, change.version, change.status)
        parts.wakeups.wake(change.tenant)

    def on_proof(asked_at: float) -> None:
        change_feed.delivery_confirmed(asked_at)
        parts.repair.feed_confirmed()

    def on_lost() -> None:
        change_feed.listening_ended()
        parts.repair.feed_ended()

    listener = Listener(
        parts.database,
        clock,
        on_notice=on_notice,
        on_alive=change_feed.listening_began,
        on_proof=on_proof,
        on_deaf=change_feed.delivery_failed,
        on_lost=on_lost,
    )

    upstream = _upstream(settings)
    stopping = Stopping(clock, grace_seconds=settings.broker_grace_seconds)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        # What is there by now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(COLLECT_AT, 10, 10)
        listening = asyncio.create_task(listener.run())
        renewing = asyncio.create_task(schedule.run())
        repairing = asyncio.create_task(parts.repair.run())
        journaling = asyncio.create_task(journal.run())
        ending = asyncio.create_task(endings.run())
        revoking = asyncio.create_task(parts.revocations.run())
        try:
            # From then on nothing is begun that nobody waits for; what is under way goes on.
            stopping.when_begun(renewing.cancel)
            yield {STATE_KEY: stopping}
        finally:
            await _cancelled(ending)
            await _cancelled(revoking)
            await _cancelled(renewing)
            grace_seconds = max(stopping.seconds_left(), SHUTDOWN_STORE_SECONDS)
            await asyncio.gather(
                parts.refresher.end(grace_seconds),
                parts.connector.exchanges.wait_all(grace_seconds),
            )
            await _cancelled(listening)
            await _cancelled(repairing)
            await _cancelled(journaling)
            await journal.close()
            await upstream.aclose()
            await parts.endpoints.aclose()
            await parts.database.aclose()

    app = DocumentedApp(
        title="ignition-broker",
        version=__version__,
        description="Brokers OAuth 2.0 tokens for Ignition.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # It would send to whatever host the Host header names.
        redirect_slashes=False,
    )
    app.state.metrics = metrics
    app.state.services = Services(
        access=access,
        cipher=parts.cipher,
        clock=clock,
        connector=parts.connector,
        database=parts.database,
        issuer=parts.issuer,
        keys=KeyCheck(parts.database, parts.cipher),
        journal=journal,
        makers=parts.makers,
        revocations=parts.revocations,
        sessions=Sessions(
            parts.cipher,
            AdminSessions(
                parts.database,
                access,
                BootstrapMarks(parts.cipher, admin_key.get_secret_value() if admin_key else None),
                issuer=settings.broker_oidc_issuer,
                admin_groups=settings.admin_groups,
            ),
            is_https=settings.is_https,
        ),
        single_sign_on=single_sign_on(settings, parts, clock),
        stopping=stopping,
        public_origin=settings.public_origin,
        own_origin=OwnOrigin(settings.public_origin, settings.trusted_networks),
        schema_version=newest_version(),
    )
    for module in (documented_routes, admin, health, sign_in, pages, api_key_pages, docs):
        app.include_router(module.router)
    errors.install(app)
    forwarder = Forwarder(
        parts.issuer,
        upstream,
        clock,
        journal,
        api_url=settings.ignition_api_url,
        base_path=urlsplit(settings.ignition_api_url).path.encode("ascii"),
        replay_limit_bytes=settings.broker_proxy_replay_limit,
        timeout_seconds=settings.broker_proxy_timeout,
        tenant_concurrency=settings.broker_proxy_tenant_concurrency,
    )
    ids, counts = RequestIds(), metrics.requests
    # From the most often asked to the least.
    routes = HeadRequests(PlainPaths(BodyLimit(app)))
    enveloped = RequestEnvelope(routes, ids, counts, is_https=settings.is_https)
    proxy = ProxyRoute(enveloped, access, forwarder, journal, ids, counts)
    hot = HotPath(proxy, access, parts.issuer, journal, clock, ids, counts)
    port = settings.broker_operations_port
    return hot if port is None else OperationsPort(hot, ids, port=port)


def _upstream(settings: Settings) -> Upstream:
    limits = Limits(
        connect_timeout_seconds=settings.broker_proxy_connect_timeout,
        timeout_seconds=settings.broker_proxy_timeout,
        idle_timeout_seconds=settings.broker_proxy_idle_timeout,
        connections=settings.broker_proxy_connections,
        # As many as it may have in use at once.
        idle_per_tenant=settings.broker_proxy_tenant_concurrency,
    )
    if settings.broker_proxy_http2:
        from ignition_broker.outbound.http2 import Http2Upstream

        return Http2Upstream(settings.ignition_api_url, limits)
    return Pool(settings.ignition_api_url, limits)


def workload_identities(settings: Settings, clock: Clock) -> WorkloadIdentities | None:
    """None where no issuer is trusted."""
    if not settings.broker_jwt_issuers:
        return None
    # Here for the same reason as in `single_sign_on`.
    from ignition_broker.broker.callers.workload_identity import WorkloadIdentities
    from ignition_broker.broker.callers.workload_issuers import parse_issuers

    return WorkloadIdentities(parse_issuers(settings.broker_jwt_issuers), clock)


def single_sign_on(settings: Settings, parts: Parts, clock: Clock) -> SingleSignOn | None:
    """None where no identity provider is set."""
    issuer, client_id = settings.broker_oidc_issuer, settings.broker_oidc_client_id
    secret = settings.broker_oidc_client_secret
    if issuer is None or client_id is None or secret is None:
        return None
    # Here, since whatever has no identity provider starts faster without Authlib.
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
        IdentityProvider(client, clock),
        clock,
        issuer=issuer,
        client_id=client_id,
        admin_groups=settings.admin_groups,
        groups_claim=settings.broker_oidc_groups_claim,
    )


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
