"""The service as an ASGI app: its parts, its routes, and what stands ahead of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.types import ASGIApp

from ignition_broker import __version__
from ignition_broker.background_tasks import BackgroundTasks, tune_garbage_collector
from ignition_broker.broker.admins.bootstrap import BootstrapKeyHashes
from ignition_broker.broker.admins.sessions import AdminSessions
from ignition_broker.broker.allowance.gate import AllowanceGate
from ignition_broker.broker.audit.recorder import AuditRecorder
from ignition_broker.broker.encryption_keys.inventory import EncryptionKeyCheck
from ignition_broker.broker.notifications.event_stream import EventStreams
from ignition_broker.clock import Clock, SystemClock
from ignition_broker.grant_ids import DEFAULT_CLIENT
from ignition_broker.outbound.upstream import Upstream
from ignition_broker.proxy.forward import Forwarder
from ignition_broker.proxy.metered import admit_page
from ignition_broker.proxy.paging.walk import PageStreams
from ignition_broker.server.stop_state import STATE_KEY, Stopping
from ignition_broker.settings import Settings, load_settings
from ignition_broker.storage.schema import newest_version
from ignition_broker.telemetry import Metrics, configure_logging
from ignition_broker.web import admin, docs, documented_routes, errors, health, public_files
from ignition_broker.web.body_limit import BodyLimit
from ignition_broker.web.browser_sessions import BrowserSessions
from ignition_broker.web.client_names import ClientNames
from ignition_broker.web.client_routes import ClientRoutes
from ignition_broker.web.console import ROUTERS as CONSOLE_ROUTERS
from ignition_broker.web.head_requests import HeadRequests
from ignition_broker.web.middleware import RequestEnvelope, RequestIds
from ignition_broker.web.openapi import DocumentedApp
from ignition_broker.web.operations_port import OperationsPort
from ignition_broker.web.own_origin import OwnOrigin
from ignition_broker.web.page_problems import PageProblems
from ignition_broker.web.path_spelling import PlainPaths
from ignition_broker.web.proxy_route import ProxyRoute
from ignition_broker.web.services import Services
from ignition_broker.web.token_routes import TokenRoutes
from ignition_broker.wiring import Parts, assemble, bootstrap_admin_key, single_sign_on, upstream
from ignition_broker.wiring_allowance import allowance_gate, metered
from ignition_broker.wiring_console import shown_settings
from ignition_broker.wiring_notifications import endpoints
from ignition_broker.wiring_public_pages import public_pages


def application() -> ASGIApp:
    """The service with the settings of the environment: what uvicorn is told to call."""
    settings = load_settings(Settings)
    configure_logging(
        settings.broker_log_level, settings.broker_log_format, secrets=settings.secrets()
    )
    return create_app(settings)


def create_app(settings: Settings, *, clock: Clock | None = None) -> ASGIApp:
    """Builds the service; its lifespan opens and closes its connections."""
    clock = clock or SystemClock()
    metrics = Metrics()
    parts = assemble(settings, clock, metrics)
    _expose(parts, metrics)
    gate = allowance_gate(settings, parts.database, clock)
    if gate is not None:
        metrics.allowance.read_from(gate.counts.collect)
    audit_recorder = AuditRecorder(
        parts.database,
        clock,
        is_strict=settings.broker_audit_strict,
        on_lost=metrics.audit_events_lost.inc,
    )
    stopping = Stopping(clock, grace_seconds=settings.broker_grace_seconds)
    apis = {
        name: upstream(client.api_url, settings, parts.egress)
        for name, client in settings.oauth_clients.items()
    }
    background = BackgroundTasks(settings, parts, audit_recorder, stopping, clock, metrics, gate)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        tune_garbage_collector()
        try:
            async with background.running():
                yield {STATE_KEY: stopping}
        finally:
            for api in apis.values():
                await api.aclose()
            await parts.endpoints.aclose()
            await parts.database.aclose()

    app = DocumentedApp(
        title="ignition-broker",
        version=__version__,
        description="Brokers OAuth 2.0 tokens for Ignition.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # FastAPI would redirect to whatever host the Host header names.
        redirect_slashes=False,
    )
    app.state.metrics = metrics
    app.state.services = _services(settings, parts, gate, audit_recorder, stopping, clock)
    others = (health.router, *CONSOLE_ROUTERS, public_files.router, docs.router)
    for router in (documented_routes.router, *admin.ROUTERS, *others):
        app.include_router(router)
    errors.install(app)
    return _ahead_of_routes(
        app, settings, parts, apis, gate, audit_recorder, stopping, clock, metrics
    )


def _expose(parts: Parts, metrics: Metrics) -> None:
    """Metrics that are read off the parts when they are asked for."""
    metrics.cached_tokens.set_function(lambda: len(parts.cache))
    metrics.remembered_answers.set_function(lambda: len(parts.repair))
    metrics.late_token_requests.set_function(lambda: parts.endpoints.late_requests)
    metrics.is_listening.set_function(lambda: float(parts.change_feed.is_trusted))


def _services(
    settings: Settings,
    parts: Parts,
    gate: AllowanceGate | None,
    audit_recorder: AuditRecorder,
    stopping: Stopping,
    clock: Clock,
) -> Services:
    admins = AdminSessions(
        parts.database,
        parts.access,
        BootstrapKeyHashes(parts.cipher, bootstrap_admin_key(settings)),
        issuer=settings.broker_oidc_issuer,
        admin_groups=settings.admin_groups,
    )
    event_streams = EventStreams(parts.database, clock)
    stopping.when_begun(event_streams.end)
    return Services(
        access=parts.access,
        allowance=gate,
        breakers={name: parts.clients.named(name).breaker for name in parts.clients.names},
        cipher=parts.cipher,
        clients=ClientNames(parts.clients.names),
        clock=clock,
        connector=parts.connector,
        database=parts.database,
        issuer=parts.issuer,
        encryption_keys=EncryptionKeyCheck(parts.database, parts.cipher),
        held_grants=parts.held_grants,
        identification=parts.identification,
        endpoints=endpoints(settings, parts),
        event_streams=event_streams,
        audit_recorder=audit_recorder,
        makers=parts.makers,
        revocations=parts.revocations,
        sessions=BrowserSessions(parts.cipher, admins, is_https=settings.is_https),
        single_sign_on=single_sign_on(settings, parts, clock),
        stopping=stopping,
        public_origin=settings.public_origin,
        public_pages=public_pages(settings),
        own_origin=OwnOrigin(settings.public_origin, settings.trusted_networks),
        shown_settings=shown_settings(settings),
        schema_version=newest_version(),
    )


def _ahead_of_routes(
    app: ASGIApp,
    settings: Settings,
    parts: Parts,
    apis: Mapping[str, Upstream],
    gate: AllowanceGate | None,
    audit_recorder: AuditRecorder,
    stopping: Stopping,
    clock: Clock,
    metrics: Metrics,
) -> ASGIApp:
    """FastAPI's routes behind the plain ASGI apps, of which the most often called is outermost."""
    pages = PageStreams(
        clock,
        tenant_streams=settings.broker_proxy_tenant_concurrency,
        stopping=stopping,
        problem_of=PageProblems(audit_recorder).members,
        admit=None if gate is None else admit_page,
    )
    forwarders = {
        name: metered(
            _forwarder(client.api_url, apis[name], settings, parts, audit_recorder, pages, clock),
            gate,
        )
        for name, client in settings.oauth_clients.items()
    }
    access, clients = parts.access, ClientNames(parts.clients.names)
    ids, counts = RequestIds(), metrics.requests
    routes = HeadRequests(PlainPaths(BodyLimit(app)))
    enveloped = RequestEnvelope(routes, ids, counts, is_https=settings.is_https)

    def tokens_ahead_of(behind: ASGIApp) -> ASGIApp:
        return TokenRoutes(
            behind, access, parts.issuer, audit_recorder, clock, ids, counts, clients
        )

    named = {
        name: ProxyRoute(enveloped, access, each, audit_recorder, ids, counts, client=name)
        for name, each in forwarders.items()
    }
    by_client = ClientRoutes(
        enveloped,
        tokens_ahead_of(enveloped),
        named if len(named) > 1 else {},
        access,
        audit_recorder,
        ids,
        counts,
    )
    forwarder = forwarders[DEFAULT_CLIENT]
    proxy = ProxyRoute(by_client, access, forwarder, audit_recorder, ids, counts)
    tokens = tokens_ahead_of(proxy)
    port = settings.broker_operations_port
    return tokens if port is None else OperationsPort(tokens, ids, port=port)


def _forwarder(
    api_url: str,
    api: Upstream,
    settings: Settings,
    parts: Parts,
    audit_recorder: AuditRecorder,
    pages: PageStreams,
    clock: Clock,
) -> Forwarder:
    return Forwarder(
        parts.issuer,
        api,
        clock,
        audit_recorder,
        pages,
        api_url=api_url,
        base_path=urlsplit(api_url).path.encode("ascii"),
        replay_limit_bytes=settings.broker_proxy_replay_limit,
        timeout_seconds=settings.broker_proxy_timeout,
        tenant_concurrency=settings.broker_proxy_tenant_concurrency,
    )
