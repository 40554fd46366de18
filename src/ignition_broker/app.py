"""The service as an ASGI app: its parts, its routes, and what stands ahead of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.types import ASGIApp

from ignition_broker import __version__
from ignition_broker.background_tasks import BackgroundTasks, tune_garbage_collector
from ignition_broker.broker.admins.bootstrap import BootstrapKeyHashes
from ignition_broker.broker.admins.sessions import AdminSessions
from ignition_broker.broker.audit.recorder import AuditRecorder
from ignition_broker.broker.encryption_keys.inventory import EncryptionKeyCheck
from ignition_broker.clock import Clock, SystemClock
from ignition_broker.outbound.upstream import Upstream
from ignition_broker.proxy.forward import Forwarder
from ignition_broker.server.stop_state import STATE_KEY, Stopping
from ignition_broker.settings import Settings, load_settings
from ignition_broker.storage.schema import newest_version
from ignition_broker.telemetry import Metrics, configure_logging
from ignition_broker.web import admin, docs, documented_routes, errors, health
from ignition_broker.web.body_limit import BodyLimit
from ignition_broker.web.browser_sessions import BrowserSessions
from ignition_broker.web.console import api_key_pages, pages, sign_in
from ignition_broker.web.head_requests import HeadRequests
from ignition_broker.web.middleware import RequestEnvelope, RequestIds
from ignition_broker.web.openapi import DocumentedApp
from ignition_broker.web.operations_port import OperationsPort
from ignition_broker.web.own_origin import OwnOrigin
from ignition_broker.web.path_spelling import PlainPaths
from ignition_broker.web.proxy_route import ProxyRoute
from ignition_broker.web.services import Services
from ignition_broker.web.token_routes import TokenRoutes
from ignition_broker.wiring import Parts, assemble, bootstrap_admin_key, single_sign_on, upstream


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
    audit_recorder = AuditRecorder(
        parts.database,
        clock,
        is_strict=settings.broker_audit_strict,
        on_lost=metrics.audit_events_lost.inc,
    )
    stopping = Stopping(clock, grace_seconds=settings.broker_grace_seconds)
    api = upstream(settings, parts.egress)
    background = BackgroundTasks(settings, parts, audit_recorder, stopping, clock, metrics)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        tune_garbage_collector()
        try:
            async with background.running():
                yield {STATE_KEY: stopping}
        finally:
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
    app.state.services = _services(settings, parts, audit_recorder, stopping, clock)
    others = (health, sign_in, pages, api_key_pages, docs)
    for router in (documented_routes.router, *admin.ROUTERS, *(each.router for each in others)):
        app.include_router(router)
    errors.install(app)
    return _ahead_of_routes(app, settings, parts, api, audit_recorder, clock, metrics)


def _expose(parts: Parts, metrics: Metrics) -> None:
    """Metrics that are read off the parts when they are asked for."""
    metrics.cached_tokens.set_function(lambda: len(parts.cache))
    metrics.remembered_answers.set_function(lambda: len(parts.repair))
    metrics.late_token_requests.set_function(lambda: parts.endpoints.late_requests)
    metrics.is_listening.set_function(lambda: float(parts.change_feed.is_trusted))


def _services(
    settings: Settings,
    parts: Parts,
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
    return Services(
        access=parts.access,
        cipher=parts.cipher,
        clock=clock,
        connector=parts.connector,
        database=parts.database,
        issuer=parts.issuer,
        encryption_keys=EncryptionKeyCheck(parts.database, parts.cipher),
        audit_recorder=audit_recorder,
        makers=parts.makers,
        revocations=parts.revocations,
        sessions=BrowserSessions(parts.cipher, admins, is_https=settings.is_https),
        single_sign_on=single_sign_on(settings, parts, clock),
        stopping=stopping,
        public_origin=settings.public_origin,
        own_origin=OwnOrigin(settings.public_origin, settings.trusted_networks),
        schema_version=newest_version(),
    )


def _ahead_of_routes(
    app: ASGIApp,
    settings: Settings,
    parts: Parts,
    api: Upstream,
    audit_recorder: AuditRecorder,
    clock: Clock,
    metrics: Metrics,
) -> ASGIApp:
    """FastAPI's routes behind the plain ASGI apps, of which the most often called is outermost."""
    forwarder = Forwarder(
        parts.issuer,
        api,
        clock,
        audit_recorder,
        api_url=settings.ignition_api_url,
        base_path=urlsplit(settings.ignition_api_url).path.encode("ascii"),
        replay_limit_bytes=settings.broker_proxy_replay_limit,
        timeout_seconds=settings.broker_proxy_timeout,
        tenant_concurrency=settings.broker_proxy_tenant_concurrency,
    )
    ids, counts = RequestIds(), metrics.requests
    routes = HeadRequests(PlainPaths(BodyLimit(app)))
    enveloped = RequestEnvelope(routes, ids, counts, is_https=settings.is_https)
    proxy = ProxyRoute(enveloped, parts.access, forwarder, audit_recorder, ids, counts)
    tokens = TokenRoutes(proxy, parts.access, parts.issuer, audit_recorder, clock, ids, counts)
    port = settings.broker_operations_port
    return tokens if port is None else OperationsPort(tokens, ids, port=port)
