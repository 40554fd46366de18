"""The errors of `ignition_broker.storage`, to which those of Postgres and asyncpg are translated.

StorageError
├── StorageUnavailable    Postgres is away or too busy: try again
│   ├── SchemaUnfit       a table or a right is missing: an operator must act
│   └── SessionsNotKept   a pooler shares connections: an operator must act
└── StorageFault          Postgres refused the statement: a fault of ours
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import structlog
from sqlalchemy import exc

from ignition_broker.storage.condition_names import broken_connection, condition


class StorageError(Exception):
    """A statement failed, or it is unknown whether it was carried out."""


class StorageUnavailable(StorageError):
    """No connection, a broken one, a starting or stopping server, a full pool, a locked row.

    ``detail`` is shown to callers.
    """

    detail = "The database is away; try again shortly."


class SchemaUnfit(StorageUnavailable):
    """A table, column or function is missing, or the role has no right to it."""

    detail = "The database is not as this release needs it; an operator has to look at /readyz."


NOT_KEPT = (
    "the database is behind a pooler that gives each transaction another connection of Postgres "
    "(pgbouncer: pool_mode = transaction or statement), so that changes are not heard of and "
    "prepared statements are lost; give the address of Postgres itself, or set pool_mode = "
    "session; example: DATABASE_URL=postgresql://broker:…@db:5432/broker"
)


class SessionsNotKept(StorageUnavailable):
    """A pooler gives each transaction another connection of Postgres; see `storage.pooler`."""

    detail = "The database is behind a pooler that mixes sessions up; see /readyz."


class StorageFault(StorageError):
    """Postgres refused a statement, such as for a broken constraint."""


# SQLSTATE classes: connection, authorization, unknown database, transaction rollback, resources,
# operator intervention, system. Then single codes: read-only transaction (a standby), idle
# transaction ended, object in use, lock not available.
_PASSING = ("08", "28", "3D", "40", "53", "57", "58", "25006", "25P03", "55006", "55P03")
_LACKS = ("3F000", "42703", "42704", "42883", "42P01")
_MAY_NOT = "42501"
# A prepared statement is missing, or exists already: a pooler has swapped the connection.
_LOST = ("26000", "42P05")

log = structlog.get_logger(__name__)


@contextmanager
def translated() -> Iterator[None]:
    """Translates the errors of SQLAlchemy, asyncpg and sockets into those above."""
    try:
        yield
    except exc.DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
        if state is not None:
            raise _refused(str(state)) from error
        if error.connection_invalidated or _is_broken(error):
            raise StorageUnavailable(broken_connection(error.orig or error)) from error
        raise _fault(type(error.orig).__name__) from error
    except exc.TimeoutError as error:
        raise StorageUnavailable("no database connection became free in time") from error
    except exc.SQLAlchemyError as error:
        raise _fault(type(error).__name__) from error
    except asyncpg.InvalidCachedStatementError as error:
        # A migration changed the statement's columns; the next try prepares it anew.
        raise StorageUnavailable("the schema was changed meanwhile") from error
    except asyncpg.PostgresError as error:
        raise _refused(str(error.sqlstate)) from error
    except (
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        OSError,
        TimeoutError,
        asyncio.IncompleteReadError,
    ) as error:
        # SQLAlchemy, which the migrations use, lets some errors of a broken connection through.
        raise StorageUnavailable(broken_connection(error)) from error


def _refused(sqlstate: str) -> StorageError:
    text = condition(sqlstate)
    if sqlstate in _LACKS:
        log.error("statement_refused", reason=text)
        return SchemaUnfit(f"{text}; run: migrate")
    if sqlstate == _MAY_NOT:
        log.error("statement_refused", reason=text)
        return SchemaUnfit(f"{text}; the role in DATABASE_URL needs rights on the broker's tables")
    if sqlstate in _LOST:
        return SessionsNotKept(f"{NOT_KEPT} ({text})")
    return StorageUnavailable(text) if sqlstate.startswith(_PASSING) else _fault(text)


def _fault(text: str) -> StorageFault:
    log.error("statement_refused", reason=text)
    return StorageFault(text)


def _is_broken(error: exc.DBAPIError) -> bool:
    # The second is a connection that broke between two messages of one statement.
    return isinstance(error, exc.InterfaceError | exc.OperationalError) or isinstance(
        getattr(error.orig, "__cause__", None), asyncpg.InternalClientError
    )
