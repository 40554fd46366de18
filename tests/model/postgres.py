"""The simulated Postgres: the rows, a server that can be away, and a replica's way to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sqlalchemy import TextClause

from ignition_broker.cipher import Cipher
from ignition_broker.storage import (
    audit,
    audit_chain,
    authorizations,
    callbacks,
    connect_links,
    held_grants,
    listen,
    pending_revocations,
    sessions,
    tenants,
)
from ignition_broker.storage.database import STATEMENT_TIMEOUT_SECONDS, Database
from ignition_broker.storage.errors import translated
from tests.model import statements
from tests.model.rows import Found, Given, GrantRow, GrantRows, Watcher
from tests.model.statements import NOTIFYING, STATEMENTS
from tests.model.world import NOTICE_SECONDS, POSTGRES, Notice, World

if TYPE_CHECKING:
    from tests.model.replicas import Replica

BEGAN_AT = 1_700_000_000.0
"""The server's clock when the world begins."""

# Statements that don't concern a grant's row are answered at once.
BESIDE_THE_POINT: dict[TextClause, Found] = {
    listen.COUNT_LISTENERS: [SimpleNamespace(count=2)],
    authorizations.CLEAR: [],
    connect_links.CLEAR: [],
    sessions.CLEAR: [],
    callbacks.CLEAR: [],
    connect_links.REVOKE_ALL: [],
    held_grants.READ_ANY: [],
    tenants.END_BEGUN: [SimpleNamespace(generation=1)],
    audit.APPEND: [],
    pending_revocations.ADD: [SimpleNamespace(id=1)],
    pending_revocations.POSTPONE: [],
    pending_revocations.SETTLE: [],
    audit_chain.CLEAR_HEADS: [],
    tenants.READ: [
        SimpleNamespace(
            tenant="",
            client="default",
            status="connected",
            scope=None,
            expires_at=None,
            connected_at=None,
            refreshed_at=None,
            last_error=None,
            renewable=True,
            refresh_token_expires_at=None,
            name=None,
            labels=None,
            account_id=None,
            account_name=None,
            shared_with=None,
            held_id=None,
            held_name=None,
            held_until=None,
        )
    ],
}


class PlainCipher(Cipher):
    """Readable, and like the real one in that no two ciphertexts are alike."""

    def __init__(self) -> None:
        self._written = 0
        self.fingerprints = ("plain",)

    def encrypt(self, tenant: str, column: str, value: str) -> bytes:
        self._written += 1
        return f"{self._written} {tenant} {column} {value}".encode()

    def decrypt(self, tenant: str, column: str, ciphertext: bytes) -> str:
        _number, *place, value = ciphertext.decode().split(" ")
        assert place == [tenant, column]
        return value


class Server:
    """One Postgres. ``is_away``: killed, and not yet back. ``watch`` is told of every row that
    changes, before anybody else is."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.table = GrantRows(self._changed)
        self.watch: Watcher = lambda _statement, _before, _row: None
        self.is_away = False
        self.back_at = 0.0

    @property
    def now(self) -> float:
        return BEGAN_AT + self._world.now

    def carry_out(self, replica: Replica, statement: TextClause, given: Given) -> Found:
        if self.is_away or replica.is_cut_off:
            raise ConnectionRefusedError
        return self.commit(statement, given)

    def commit(self, statement: TextClause, given: Given) -> Found:
        return statements.carry_out(self.table, statement, given, self.now)

    def _changed(self, statement: TextClause, before: GrantRow | None, row: GrantRow) -> None:
        self.watch(statement, before, row)
        if statement in NOTIFYING:
            for replica in self._world.replicas:
                if replica.is_alive and replica.listens:
                    self._notify(replica, row)

    def _notify(self, replica: Replica, row: GrantRow) -> None:
        now = self._world.now
        payload = (row.tenant_id, row.version, row.status)
        self._world.pending.append(Notice(replica, payload, now, now + NOTICE_SECONDS))


class Rows(list[SimpleNamespace]):
    """A statement's result, as far as the storage modules look at one."""

    def one_or_none(self) -> SimpleNamespace | None:
        assert len(self) <= 1
        return self[0] if self else None

    def one(self) -> SimpleNamespace:
        assert len(self) == 1
        return self[0]

    def scalar_one(self) -> object:
        return next(iter(vars(self.one()).values()))


class SimulatedConnection:
    """Knows a statement by its identity."""

    def __init__(self, carry_out: Callable[[TextClause, Given], Awaitable[Found]]) -> None:
        self._carry_out = carry_out

    async def execute(self, statement: TextClause, given: Given | None = None) -> Rows:
        return Rows(await self._carry_out(statement, given or {}))

    async def scalar(self, statement: TextClause, given: Given | None = None) -> object:
        rows = await self.execute(statement, given)
        return rows.scalar_one() if rows else None


class SimulatedDatabase(Database):
    """A replica's pool: `once` is the real one's."""

    def __init__(self, world: World, replica: Replica, server: Server) -> None:
        self._world = world
        self._replica = replica
        self._server = server

    async def _carry_out(self, statement: TextClause, given: Given) -> Found:
        if statement in BESIDE_THE_POINT:
            return BESIDE_THE_POINT[statement]
        operation = self._world.begin(
            self._replica,
            POSTGRES,
            STATEMENTS[statement].__name__,
            lambda: self._server.carry_out(self._replica, statement, given),
        )
        async with asyncio.timeout(STATEMENT_TIMEOUT_SECONDS):
            found: Found = await operation.future
        return found

    async def single(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        with translated():
            return await work(SimulatedConnection(self._carry_out))

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        """The one statement of it that bears on a grant's row is taken for the whole."""
        with translated():
            yield SimulatedConnection(self._carry_out)
