"""Grants that are read by one statement stay apart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.fernet import Fernet

from ignition_broker.broker.errors import UnknownTenant
from ignition_broker.broker.grants.grant_reader import GrantReader
from ignition_broker.cipher import Cipher, CipherError, Misplaced
from ignition_broker.storage.connection import Rows


def row_of(tenant: str, access_token: bytes) -> SimpleNamespace:
    return SimpleNamespace(
        known=tenant,
        status="connected",
        version=1,
        access_token=access_token,
        token_type="Bearer",
        scope="read",
        expires_at=datetime.now(UTC),
        lifetime_seconds=600.0,
        seconds_left=500.0,
        issued_seconds_ago=100.0,
        refreshed_seconds_ago=None,
        is_renewable=True,
        lease_is_held=False,
        is_uncertain=False,
        retry_in_seconds=None,
        failures=0,
        last_error=None,
        early_renewals=0,
    )


class RowsOnly:
    """A database that holds these rows."""

    def __init__(self, *rows: SimpleNamespace) -> None:
        self._rows = {row.known: row for row in rows}
        self.statements = 0
        self.moves: list[Misplaced] = []

    async def once(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        return await work(self)

    async def execute(self, _statement: object, given: dict[str, list[str]]) -> Rows:
        self.statements += 1
        found = [self._rows[tenant] for tenant in given["tenants"] if tenant in self._rows]
        return Rows(found)  # type: ignore[arg-type]

    async def record_move(self, error: Misplaced) -> None:
        self.moves.append(error)


class NoRepair:
    async def read(self, _tenant: str, read: Callable[[float], Awaitable[Any]]) -> Any:
        return await read(1000.0)


async def test_a_row_that_can_not_be_used_spoils_none_that_was_read_with_it():
    cipher = Cipher([Fernet.generate_key().decode()])
    database: Any = RowsOnly(
        row_of("acme", cipher.encrypt("acme", "access_token", "of-acme")),
        row_of("moved", cipher.encrypt("acme", "access_token", "of-acme")),
        row_of("torn", b"torn"),
    )
    kept: list[str] = []
    cache: Any = SimpleNamespace(
        mark=lambda: 0,
        was_dropped=lambda *_: False,
        forget=lambda _tenant: None,
        put=lambda token, _mark: kept.append(token.tenant),
    )
    repair: Any = NoRepair()
    reader = GrantReader(database, cipher, cache, repair)
    names = ["acme", "moved", "torn", "nobody"]
    acme, *others = await asyncio.gather(*map(reader.read, names), return_exceptions=True)
    assert database.statements == 1
    assert isinstance(acme, tuple)
    assert acme[1].access_token.reveal() == "of-acme"
    assert acme[1].dies_at == pytest.approx(1500.0)
    assert [type(other) for other in others][::2] == [Misplaced, UnknownTenant]
    assert isinstance(others[1], CipherError)
    assert kept == ["acme"]
    assert database.moves == [others[0]]
