"""SQLAlchemy's statements, carried out by asyncpg itself.

SQLAlchemy's own connection costs ten times what asyncpg takes for a read by key: a switch of
greenlets, an event, a cursor and a result for each. None of it is needed here.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

import asyncpg
from sqlalchemy import TextClause
from sqlalchemy.engine.default import DefaultDialect

_DIALECT = DefaultDialect(paramstyle="numeric_dollar")

LOCK_BRIEFLY = "(SELECT set_config('lock_timeout', '100ms', true)) IS NOT NULL"
"""A condition that is always true, for a statement on one row that is tried until it succeeds:
Postgres evaluates it before it locks the row, and then refuses the statement (SQLSTATE 55P03) if
somebody else holds the lock for longer than that. So many statements that wait for locked rows do
not occupy every connection of the pool. It ends with the statement's transaction."""


class Row(asyncpg.Record):  # type: ignore[misc]
    """A row whose columns are its attributes."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Rows:
    """What a statement gave back."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def one_or_none(self) -> Row | None:
        if len(self._rows) > 1:
            raise ValueError("more than one row, where a statement gives one at most")
        return self._rows[0] if self._rows else None

    def one(self) -> Row:
        row = self.one_or_none()
        if row is None:
            raise ValueError("no row, where a statement always gives one")
        return row

    def scalar_one(self) -> Any:
        """The first column of the one row."""
        return self.one()[0]


Driver: TypeAlias = "asyncpg.Connection[Row]"

_PROCESS = secrets.token_hex(4)


class NamingConnection(asyncpg.Connection):  # type: ignore[misc]
    """Names its prepared statements as no other process does.

    asyncpg numbers them, so that processes use the same names for other statements. Where a pooler
    mixes sessions up before that is found out, such a name would carry out another's statement;
    so it is refused.
    """

    __slots__ = ()

    def _get_unique_id(self, prefix: str) -> str:
        return f"{super()._get_unique_id(prefix)}{_PROCESS}"


class Connection:
    """What the storage modules see of a connection."""

    __slots__ = ("_driver",)

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def execute(
        self, statement: TextClause, parameters: Mapping[str, object] | None = None
    ) -> Rows:
        """Prepared once on each connection. Raises what asyncpg and the socket raise."""
        sql, names = _compiled(statement)
        arguments = [parameters[name] for name in names] if parameters else ()
        return Rows(await self._driver.fetch(sql, *arguments))

    async def scalar(
        self, statement: TextClause, parameters: Mapping[str, object] | None = None
    ) -> Any:
        """The first column of the one row; None where there is none."""
        row = (await self.execute(statement, parameters)).one_or_none()
        return None if row is None else row[0]


@cache
def _compiled(statement: TextClause) -> tuple[str, tuple[str, ...]]:
    """With ``$1`` for ``:name``, and the names in the order of their numbers. Statements are
    constants of their modules, so that each is compiled once."""
    compiled = statement.compile(dialect=_DIALECT)
    return str(compiled), tuple(compiled.positiontup or ())
