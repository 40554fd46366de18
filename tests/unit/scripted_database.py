"""A database whose answers are written down beforehand, statement by statement."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from sqlalchemy import TextClause

Answer = Callable[[Mapping[str, Any]], list[dict[str, Any]]]


class ScriptedRows:
    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = [SimpleNamespace(**row) for row in rows]

    def __iter__(self) -> Iterator[SimpleNamespace]:
        return iter(self._rows)

    def one_or_none(self) -> SimpleNamespace | None:
        return self._rows[0] if self._rows else None

    def one(self) -> SimpleNamespace:
        (row,) = self._rows
        return row

    def scalar_one(self) -> Any:
        return next(iter(vars(self.one()).values()))


class ScriptedDatabase:
    """Stands for `Database`.

    ``answers`` gives, for each statement, its rows, an error to raise, or a function of the
    parameters. A statement without an answer gives no rows. What was asked is in ``asked``; of a
    transaction that failed, nothing is in ``committed``.
    """

    def __init__(self, answers: Mapping[TextClause, Any] | None = None) -> None:
        self.answers = dict(answers or {})
        self.asked: list[tuple[TextClause, dict[str, Any]]] = []
        self.committed: list[tuple[TextClause, dict[str, Any]]] = []

    def parameters_of(self, statement: TextClause) -> list[dict[str, Any]]:
        return [given for asked, given in self.committed if asked is statement]

    async def execute(
        self, statement: TextClause, parameters: Mapping[str, Any] | None = None
    ) -> ScriptedRows:
        given = dict(parameters or {})
        self.asked.append((statement, given))
        answer = self.answers.get(statement, [])
        if isinstance(answer, Exception):
            raise answer
        return ScriptedRows(answer(given) if callable(answer) else answer)

    async def once(self, work: Callable[[Any], Any]) -> Any:
        async with self.begin() as connection:
            return await work(connection)

    single = once

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[ScriptedDatabase]:
        before = len(self.asked)
        yield self
        self.committed += self.asked[before:]

    snapshot = begin
