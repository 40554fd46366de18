"""A table of grants in memory, an Ignition with a script, and the real refresh between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import TextClause
from tests.model import statements
from tests.model.postgres import BESIDE_THE_POINT, PlainCipher, SimulatedConnection
from tests.model.rows import Found, Given, GrantRow, GrantRows
from tests.unit.values import NOW, ManualClock

from ignition_broker.broker.change_feed import ChangeFeed
from ignition_broker.broker.grants.circuit_breaker import CircuitBreaker
from ignition_broker.broker.grants.oauth_clients import OAuthClient, OAuthClients
from ignition_broker.broker.grants.outcomes import OutcomeRecorder
from ignition_broker.broker.grants.read_repair import ReadRepair
from ignition_broker.broker.grants.refresh import Refresher
from ignition_broker.broker.grants.refresh_policy import RefreshPolicy
from ignition_broker.broker.grants.revocations import Revocations
from ignition_broker.broker.grants.row_repair import RowRepair
from ignition_broker.broker.grants.token_cache import TokenCache
from ignition_broker.broker.grants.token_outcomes import Outcome, Renewed, Withdrawn
from ignition_broker.broker.grants.wakeups import Wakeups
from ignition_broker.grant_ids import DEFAULT_CLIENT
from ignition_broker.oauth.revocation import RevocationVerdict, Revoked
from ignition_broker.oauth.tokens import AccessToken, RefreshToken, TokenAnswer
from ignition_broker.storage import audit, leases, refresh_tokens
from ignition_broker.storage.database import Database
from ignition_broker.storage.errors import StorageUnavailable

TENANT = "acme"
LIFETIME_SECONDS = 100.0
TIMEOUT_SECONDS = 0.2


class StillClock(ManualClock):
    """Moves only when a test moves it; whoever sleeps gives way for a moment."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0.001)


class TableDatabase(Database):
    """Carries statements out on ``table``. ``answers``: what others find. ``failures``: how many of
    the next statements find Postgres away."""

    def __init__(self, clock: ManualClock) -> None:
        self.table = GrantRows(tenants={TENANT})
        self.answers: dict[TextClause, Found] = dict(BESIDE_THE_POINT)
        self.failures = 0
        self.audit: list[tuple[str, str]] = self.table.audit
        self.carried_out: list[TextClause] = []
        self.moves: list[Exception] = []
        self._clock = clock

    async def _carry_out(self, statement: TextClause, given: Given) -> Found:
        if self.failures:
            self.failures -= 1
            raise StorageUnavailable("away")
        self.carried_out.append(statement)
        if statement is audit.APPEND:
            self.audit.append((given["action"], given["outcome"]))
        if statement in _FURTHER:
            return _FURTHER[statement](self.table, given, self._clock.at)
        if statement in statements.STATEMENTS:
            return statements.carry_out(self.table, statement, given, self._clock.at)
        return self.answers.get(statement, [])

    async def single(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        return await work(SimulatedConnection(self._carry_out))

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        yield SimulatedConnection(self._carry_out)

    async def record_move(self, error: Exception) -> None:
        self.moves.append(error)


def _set_aside(table: GrantRows, given: Given, now: float) -> Found:
    row = table.leased(given)
    if row is not None:
        row.lease_owner = row.lease_until = row.refresh_started_at = None
        row.next_refresh_at = now + given["retry_in"]
    return []


def _store_refresh_token(table: GrantRows, given: Given, _now: float) -> Found:
    row = table.at_version(given)
    if row is None:
        return []
    row.refresh_token, row.version = given["refresh_token"], row.version + 1
    row.lease_owner = row.lease_until = row.refresh_started_at = None
    row.failures, row.last_error = given["failures"], given["last_error"]
    table.audit.append((given["action"], given["outcome"]))
    return [statements._stored(row)]


_FURTHER: dict[TextClause, Callable[[GrantRows, Given, float], Found]] = {
    leases.SET_ASIDE: _set_aside,
    refresh_tokens.STORE_REFRESH_TOKEN: _store_refresh_token,
}

Answer = Outcome | Callable[[], Awaitable[Outcome]]


class ScriptedProvider:
    """Answers token requests from ``script``, in turn."""

    timeout_seconds = TIMEOUT_SECONDS
    patience_seconds = 5.0

    def __init__(self, *script: Answer) -> None:
        self.script = list(script)
        self.used: list[str] = []
        self.revoked: list[str] = []
        self.can_revoke = False

    async def refresh(
        self, refresh_token: RefreshToken, *, may_send: Callable[[], bool]
    ) -> Outcome:
        if not may_send():
            return Withdrawn()
        self.used.append(refresh_token.reveal())
        return await self._answer()

    async def exchange_code(self, code: Any, _verifier: Any) -> Outcome:
        self.used.append(code.reveal())
        return await self._answer()

    async def revoke(self, token: RefreshToken | AccessToken) -> RevocationVerdict:
        self.revoked.append(token.reveal())
        return Revoked()

    def authorization_url(self, *, state: str, verifier: Any) -> str:
        return f"https://ignition.test/authorize?state={state}"

    async def _answer(self) -> Outcome:
        answer = self.script.pop(0)
        return await answer() if callable(answer) else answer


class Stand:
    """The parts of a replica that renew grants."""

    def __init__(self, *script: Answer, issuer: str | None = None) -> None:
        self.clock = StillClock()
        self.database = TableDatabase(self.clock)
        self.provider = ScriptedProvider(*script)
        provider: Any = self.provider
        self.cipher = PlainCipher()
        self.breaker = CircuitBreaker(self.clock, probe_seconds=TIMEOUT_SECONDS)
        change_feed = ChangeFeed(self.clock)
        self.cache = TokenCache(change_feed)
        self.wakeups = Wakeups()
        self.policy = RefreshPolicy(lead_seconds=10, keepalive_seconds=600)
        client = OAuthClient(provider, self.breaker, requested_scope="read", expected_issuer=issuer)
        self.clients = OAuthClients({DEFAULT_CLIENT: client})
        self.revocations = Revocations(self.database, self.cipher, self.clients, self.clock)
        rows = RowRepair(
            self.database, self.cipher, self.clock, self.revocations, lambda _outcome: None
        )
        self.repair = ReadRepair(self.database, rows, self.cache, self.clock, remember_seconds=600)
        self.outcomes = OutcomeRecorder(
            self.database, self.cipher, self.revocations, self.clock, self.policy, self.repair
        )
        self.refresher = Refresher(
            self.database,
            self.cipher,
            self.clients,
            self.cache,
            self.wakeups,
            self.clock,
            self.outcomes,
            self.repair,
            owner="me",
        )

    def connect(self, *, age: float = 0.0, version: int = 1, **columns: Any) -> GrantRow:
        """A grant whose tokens were issued ``age`` seconds ago and live for 100."""
        row = GrantRow(
            TENANT,
            version=version,
            access_token=self.cipher.encrypt(TENANT, "access_token", f"access-{version}"),
            refresh_token=self.cipher.encrypt(TENANT, "refresh_token", f"refresh-{version}"),
            token_type="Bearer",
            scope="",
            issued_at=self.clock.at - age,
            expires_at=self.clock.at - age + LIFETIME_SECONDS,
            connected_at=self.clock.at - age,
        )
        for name, value in columns.items():
            setattr(row, name, value)
        self.database.table.rows[TENANT] = row
        return row

    @property
    def row(self) -> GrantRow:
        return self.database.table.rows[TENANT]


def renewed(number: int = 2, *, lifetime: int = 100, refresh_token: str | None = "") -> Renewed:
    """An answer that was asked for now; ``refresh_token`` None: the old one stays."""
    fresh = None if refresh_token is None else RefreshToken(refresh_token or f"refresh-{number}")
    return Renewed(
        TokenAnswer(AccessToken(f"access-{number}"), "Bearer", lifetime, fresh, None), NOW
    )
