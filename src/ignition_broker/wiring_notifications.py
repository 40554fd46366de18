"""Builds what tells others of events, from the settings."""

from __future__ import annotations

from urllib.parse import urlsplit

from ignition_broker.broker.notifications.delivery import Deliverer
from ignition_broker.broker.notifications.destinations import SettingsDestinations
from ignition_broker.broker.notifications.endpoints import Endpoints
from ignition_broker.broker.notifications.mail_server import parse_mail_server
from ignition_broker.broker.notifications.senders import Senders
from ignition_broker.broker.notifications.sending import HttpSender
from ignition_broker.clock import Clock
from ignition_broker.outbound.address_guard import AddressGuard
from ignition_broker.outbound.egress import Egress
from ignition_broker.settings import Settings
from ignition_broker.telemetry import Metrics
from ignition_broker.wiring import Parts


def settings_destinations(settings: Settings) -> SettingsDestinations:
    """The destinations that exist from the start."""
    return SettingsDestinations.of(
        settings.webhook_urls, settings.webhook_secrets, settings.notify_emails
    )


def address_guard(settings: Settings) -> AddressGuard:
    """What admins' URLs may lead to."""
    return AddressGuard.of(settings.broker_webhook_allow)


def endpoints(settings: Settings, parts: Parts) -> Endpoints:
    """Destinations that admins make."""
    return Endpoints(
        parts.database,
        parts.cipher,
        address_guard(settings),
        has_mail_server=settings.broker_smtp_url is not None,
    )


def senders(settings: Settings, egress: Egress, clock: Clock) -> Senders:
    """Sends to every kind of destination; the caller closes it."""
    http = HttpSender(egress.guarded(address_guard(settings)), clock)
    if settings.broker_smtp_url is None:
        return Senders(http, None, console_url=f"{settings.public_origin}/")
    # Imported here, since a process that sends no e-mail starts faster without it.
    from ignition_broker.broker.notifications.mail import MailSender

    server = parse_mail_server(settings.broker_smtp_url.get_secret_value())
    host = urlsplit(settings.public_origin).hostname or "localhost"
    mail = MailSender(server, egress, clock, host=host)
    return Senders(http, mail, console_url=f"{settings.public_origin}/")


def deliverer(settings: Settings, parts: Parts, clock: Clock, metrics: Metrics) -> Deliverer:
    """Delivers events; runs in every replica."""

    def on_result(kind: str, outcome: str) -> None:
        metrics.notifications.labels(kind, outcome).inc()

    return Deliverer(
        parts.database,
        parts.cipher,
        senders(settings, parts.egress, clock),
        settings_destinations(settings),
        clock,
        on_result=on_result,
    )
