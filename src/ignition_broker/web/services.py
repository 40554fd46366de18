"""What the routes of FastAPI work with; `app` puts it on the application's state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ignition_broker.broker.admins.makers import Makers
from ignition_broker.broker.admins.single_sign_on import SingleSignOn
from ignition_broker.broker.allowance.gate import AllowanceGate
from ignition_broker.broker.audit.recorder import AuditRecorder
from ignition_broker.broker.callers.access import Access
from ignition_broker.broker.encryption_keys.inventory import EncryptionKeyCheck
from ignition_broker.broker.grants.circuit_breaker import CircuitBreaker
from ignition_broker.broker.grants.connect import Connector
from ignition_broker.broker.grants.held_grants import HeldGrants
from ignition_broker.broker.grants.identification import Identification
from ignition_broker.broker.grants.issue import Issuer
from ignition_broker.broker.grants.revocations import Revocations
from ignition_broker.broker.notifications.endpoints import Endpoints
from ignition_broker.broker.notifications.event_stream import EventStreams
from ignition_broker.cipher import Cipher
from ignition_broker.clock import Clock
from ignition_broker.server.stop_state import Stopping
from ignition_broker.storage.database import Database
from ignition_broker.web.browser_sessions import BrowserSessions
from ignition_broker.web.client_names import ClientNames
from ignition_broker.web.own_origin import OwnOrigin
from ignition_broker.web.public_pages import PublicPages


@dataclass(frozen=True, slots=True)
class ShownSetting:
    """A setting as the console shows it. ``value``: of a secret, only whether there is one.
    ``is_set``: it is no default."""

    name: str
    value: str
    is_set: bool
    is_secret: bool


@dataclass(frozen=True, slots=True)
class Services:
    """``breakers``: of Ignition, by the OAuth client's name."""

    access: Access
    allowance: AllowanceGate | None
    breakers: Mapping[str, CircuitBreaker]
    cipher: Cipher
    clients: ClientNames
    clock: Clock
    connector: Connector
    database: Database
    issuer: Issuer
    encryption_keys: EncryptionKeyCheck
    held_grants: HeldGrants
    identification: Identification
    endpoints: Endpoints
    event_streams: EventStreams
    audit_recorder: AuditRecorder
    makers: Makers
    revocations: Revocations
    sessions: BrowserSessions
    single_sign_on: SingleSignOn | None
    stopping: Stopping
    public_origin: str
    public_pages: PublicPages
    own_origin: OwnOrigin
    shown_settings: tuple[ShownSetting, ...]
    schema_version: str
