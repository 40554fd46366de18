"""What the routes of FastAPI work with; `app` puts it on the application's state."""

from __future__ import annotations

from dataclasses import dataclass

from ignition_broker.broker.admins.makers import Makers
from ignition_broker.broker.admins.single_sign_on import SingleSignOn
from ignition_broker.broker.audit.recorder import AuditRecorder
from ignition_broker.broker.callers.access import Access
from ignition_broker.broker.encryption_keys.inventory import EncryptionKeyCheck
from ignition_broker.broker.grants.connect import Connector
from ignition_broker.broker.grants.issue import Issuer
from ignition_broker.broker.grants.revocations import Revocations
from ignition_broker.cipher import Cipher
from ignition_broker.clock import Clock
from ignition_broker.server.stop_state import Stopping
from ignition_broker.storage.database import Database
from ignition_broker.web.browser_sessions import BrowserSessions
from ignition_broker.web.own_origin import OwnOrigin


@dataclass(frozen=True, slots=True)
class Services:
    access: Access
    cipher: Cipher
    clock: Clock
    connector: Connector
    database: Database
    issuer: Issuer
    encryption_keys: EncryptionKeyCheck
    audit_recorder: AuditRecorder
    makers: Makers
    revocations: Revocations
    sessions: BrowserSessions
    single_sign_on: SingleSignOn | None
    stopping: Stopping
    public_origin: str
    own_origin: OwnOrigin
    schema_version: str
