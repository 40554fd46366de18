"""Executes SQLAlchemy's text statements on asyncpg.

A read by key through SQLAlchemy's own connection takes about five times as long: it switches
greenlets and makes events, a cursor and a result (decision 9). None of that is needed here.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from operator import itemgetter
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
        """The first time that any row is asked for a column of this name. From then on a property
        answers: Python 3.11 makes an `AttributeError` before it calls this method, which takes five
        times as long."""
        try:
            value = self[name]
        except KeyError:
            raise AttributeError(name) from None
        setattr(Row, name, property(itemgetter(name)))
        return value


class Rows:
    """The rows that a statement returned."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def one_or_none(self) -> Row | None:
        """The only row, or None if there is none. Raises `ValueError` for more than one."""
        if len(self._rows) > 1:
            raise ValueError("more than one row, where a statement gives one at most")
        return self._rows[0] if self._rows else None

    def one(self) -> Row:
        """The only row. Raises `ValueError` for none or more than one."""
        row = self.one_or_none()
        if row is None:
            raise ValueError("no row, where a statement always gives one")
        return row

    def scalar_one(self) -> Any:
        """The first column of the only row. Raises like `one`."""
        return self.one()[0]


Driver: TypeAlias = "asyncpg.Connection[Row]"

_PROCESS = secrets.token_hex(4)


class NamingConnection(asyncpg.Connection):  # type: ignore[misc]
    """Gives prepared statements names that are unique to this process.

    asyncpg numbers them, so that two processes use one name for different statements. If a pooler
    swapped their connections, a process would execute the other's statement. With unique names
    Postgres refuses it instead.
    """

    __slots__ = ()

    def _get_unique_id(self, prefix: str) -> str:
        return f"{super()._get_unique_id(prefix)}{_PROCESS}"


class Connection:
    """A connection as the modules of `storage` use it."""

    __slots__ = ("_driver",)

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def execute(
        self, statement: TextClause, parameters: Mapping[str, object] | None = None
    ) -> Rows:
        """Executes a statement, which is prepared once on each connection.

        ``parameters``: a value for each ``:name`` in the statement. Raises asyncpg's errors and
        `OSError`, which `storage.errors.translated` translates.
        """
        sql, names = _compiled(statement)
        arguments = [parameters[name] for name in names] if parameters else ()
        return Rows(await self._driver.fetch(sql, *arguments))

    async def scalar(
        self, statement: TextClause, parameters: Mapping[str, object] | None = None
    ) -> Any:
        """The first column of the only row; None if there is no row."""
        row = (await self.execute(statement, parameters)).one_or_none()
        return None if row is None else row[0]


@cache
def _compiled(statement: TextClause) -> tuple[str, tuple[str, ...]]:
    """The statement with ``$1`` in place of ``:name``, and the names in the order of their numbers.

    Statements are constants of their modules, so that each is compiled once.
    """
    compiled = statement.compile(dialect=_DIALECT)
    return str(compiled), tuple(compiled.positiontup or ())
