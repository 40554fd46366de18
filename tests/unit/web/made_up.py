"""Services that routes work with, made up: no database, no Ignition."""

from __future__ import annotations

from types import SimpleNamespace

from tests.unit.values import ManualClock, make_token

from ignition_broker.broker.errors import Unauthenticated
from ignition_broker.model import Caller, Scope
from ignition_broker.web import admin, errors
from ignition_broker.web.client_names import ClientNames
from ignition_broker.web.openapi import DocumentedApp

KEY = (b"authorization", b"Bearer ibk_good")


class Access:
    def __init__(self, *scopes: Scope, tenants=("acme",), paths=None) -> None:
        self.caller = Caller("key", frozenset(scopes), tenants, paths=paths)
        self.is_in_memory = True
        self.was_revoked = False
        self.confirmed = 0
        self.authenticated_from: list[str | None] = []
        self.forgotten: list[str] = []

    def from_memory(self, key: bytes) -> Caller | None:
        return self.caller if self.is_in_memory and key == b"ibk_good" else None

    async def authenticate(self, key: bytes, address: str | None) -> Caller:
        self.authenticated_from.append(address)
        if key != b"ibk_good":
            raise Unauthenticated("The API key is unknown.")
        return self.caller

    def forget(self, name: str) -> None:
        self.forgotten.append(name)

    def changes(self) -> int:
        return 0

    async def confirm(self, _caller: Caller, _changes: int) -> None:
        self.confirmed += 1
        if self.was_revoked:
            raise Unauthenticated("The API key was revoked.", key="key")


class Issuer:
    """Holds one token; writes down what it is asked for."""

    def __init__(self) -> None:
        self.token = make_token()
        self.is_in_memory = True
        self.asked: list[tuple[str, dict]] = []
        self.error: Exception | None = None

    def held(self, _tenant, min_ttl_seconds):
        self.asked.append(("held", {"min_ttl_seconds": min_ttl_seconds}))
        return self.token if self.is_in_memory else None

    async def issue(self, tenant, **wanted):
        return self._answer("issue", tenant, wanted)

    async def renew(self, tenant, **wanted):
        return self._answer("renew", tenant, wanted)

    async def renew_anyway(self, tenant, actor):
        return self._answer("renew_anyway", tenant, {"actor": actor})

    def _answer(self, what, tenant, wanted):
        self.asked.append((what, {"tenant": tenant, **wanted}))
        if self.error is not None:
            raise self.error
        return self.token


class AuditRecorder:
    def __init__(self) -> None:
        self.noted: list[tuple] = []
        self.denied: list[tuple[str, str, str]] = []

    def record_call(self, *fields):
        self.noted.append(fields)

    def record_denied_call(self, error, route, request_id):
        self.denied.append((type(error).__name__, route, request_id))


class Counts:
    def __init__(self) -> None:
        self.counted: list[tuple[str, str, int]] = []

    def count(self, route, method, status):
        self.counted.append((route, method, status))


def admin_app(access: Access, **services: object) -> DocumentedApp:
    """The admin API with these services and no middleware around it."""
    app = DocumentedApp()
    for router in admin.ROUTERS:
        app.include_router(router)
    errors.install(app)
    app.state.services = SimpleNamespace(
        access=access,
        database=None,
        audit_recorder=AuditRecorder(),
        clock=ManualClock(),
        clients=ClientNames(["default", "sandbox"]),
        **services,
    )
    return app


async def other_routes(_scope, _receive, send) -> None:
    """Stands in for FastAPI."""
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b"other"})
