"""Builds the OAuth clients and what asks Ignition for them, from the settings."""

from __future__ import annotations

from functools import partial

import structlog

from ignition_broker.broker.grants.circuit_breaker import CircuitBreaker
from ignition_broker.broker.grants.identity_probe import IdentityProbe, IdentityQuestion
from ignition_broker.broker.grants.ignition_client import IgnitionClient
from ignition_broker.broker.grants.oauth_clients import OAuthClient
from ignition_broker.broker.grants.provider import Provider, Registration
from ignition_broker.broker.grants.token_outcomes import Outcome
from ignition_broker.broker.provider_watch import ProviderWatch
from ignition_broker.broker.refresh_tally import RefreshTally
from ignition_broker.clock import Clock
from ignition_broker.json_pointer import parse_pointer
from ignition_broker.oauth.requests import client_secret_basic, client_secret_post
from ignition_broker.oauth.tokens import ClientSecret
from ignition_broker.outbound.egress import Egress
from ignition_broker.settings import ClientSettings, Settings
from ignition_broker.storage.database import Database
from ignition_broker.telemetry import Metrics

log = structlog.get_logger(__name__)


def oauth_client(
    name: str,
    client: ClientSettings,
    settings: Settings,
    endpoints: IgnitionClient,
    egress: Egress,
    database: Database,
    watches: list[ProviderWatch],
    tally: RefreshTally,
    clock: Clock,
    metrics: Metrics,
) -> OAuthClient:
    """``watches`` gets the one that watches the client's requests."""
    breaker = CircuitBreaker(clock, probe_seconds=settings.broker_provider_timeout)
    watch = ProviderWatch(database, breaker, clock, client=name)
    watches.append(watch)

    def observe(kind: str, outcome: Outcome, seconds: float) -> None:
        metrics.provider_requests.labels(name, kind, type(outcome).__name__).observe(seconds)
        watch.observe(outcome)
        if kind == "refresh_token":
            tally.count(name, outcome)

    def on_secret_refused() -> None:
        metrics.client_secrets_refused.labels(name).inc()
        log.error(
            "client_secret_refused",
            client=name,
            remedy="Ignition does not know the newest client secret; the one before it is used",
        )

    provider = Provider(
        endpoints,
        registration(client, settings.redirect_uri),
        clock,
        breaker,
        timeout_seconds=settings.broker_provider_timeout,
        patience_seconds=settings.provider_patience,
        observe=observe,
        on_secret_refused=on_secret_refused,
    )
    question = identity_question(client)
    probe = None if question is None else IdentityProbe(question, clock, egress)
    return OAuthClient(provider, breaker, client.scopes, client.issuer, probe)


def registration(client: ClientSettings, redirect_uri: str) -> Registration:
    """The OAuth client as it is registered at Ignition."""
    methods = {
        "client_secret_post": client_secret_post,
        "client_secret_basic": client_secret_basic,
    }
    authenticated = partial(methods[client.client_auth], client.client_id)
    secret, previous = ClientSecret(client.secret.get_secret_value()), None
    if client.previous_secret is not None:
        before = ClientSecret(client.previous_secret.get_secret_value())
        previous = (before, authenticated(before))
    return Registration(
        client_id=client.client_id,
        redirect_uri=redirect_uri,
        scope=client.scopes,
        authorize_url=client.authorize_url,
        token_url=client.token_url,
        revoke_url=client.revoke_url,
        client_secret=secret,
        authenticate=authenticated(secret),
        previous=previous,
        body_format=client.token_format,
        refusal_codes=client.refusal_codes,
    )


def identity_question(client: ClientSettings) -> IdentityQuestion | None:
    """How to ask Ignition's API whose account a token is for; None: it is not asked."""
    if client.identity_url is None or client.identity_id is None:
        return None
    name = client.identity_name
    return IdentityQuestion(
        client.identity_url,
        parse_pointer(client.identity_id),
        None if name is None else parse_pointer(name),
    )
