"""What can go wrong between us and Postgres, in our words.

StorageError
├── StorageUnavailable    Postgres is away, or too busy: worth trying again
└── StorageFault          it answered, and the fault is ours or the schema's
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import structlog
from sqlalchemy import exc


class StorageError(Exception):
    """A statement was not carried out, or nobody knows whether it was."""


class StorageUnavailable(StorageError):
    """No connection, a broken one, a server that starts or stops, a full pool."""


class StorageFault(StorageError):
    """A statement that Postgres refuses: a missing table, a broken constraint."""


# SQLSTATE classes: connection, who may connect, and to which database, transaction rollback,
# resources, operator intervention, system.
_PASSING_CLASSES = ("08", "28", "3D", "40", "53", "57", "58")

log = structlog.get_logger(__name__)


@contextmanager
def translated() -> Iterator[None]:
    """Turns what SQLAlchemy, asyncpg and the socket raise into the tree above."""
    try:
        yield
    except exc.DBAPIError as error:
        if error.connection_invalidated or _is_passing(error):
            raise StorageUnavailable(type(error.orig).__name__) from error
        raise _fault(error.orig) from error
    except exc.TimeoutError as error:
        raise StorageUnavailable("no database connection became free in time") from error
    except exc.SQLAlchemyError as error:
        raise _fault(error) from error
    except asyncpg.PostgresError as error:
        if str(error.sqlstate).startswith(_PASSING_CLASSES):
            raise StorageUnavailable(type(error).__name__) from error
        raise _fault(error) from error
    except (
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        OSError,
        TimeoutError,
        asyncio.IncompleteReadError,
    ) as error:
        # SQLAlchemy lets through what it does not know of a connection that breaks.
        raise StorageUnavailable(type(error).__name__) from error


def _fault(error: BaseException | None) -> StorageFault:
    kind = type(error).__name__
    log.error("statement_refused", kind=kind)
    return StorageFault(kind)


def _is_passing(error: exc.DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    if state is None:
        # The second: a connection that broke between two messages of one statement.
        return isinstance(error, exc.InterfaceError | exc.OperationalError) or isinstance(
            getattr(error.orig, "__cause__", None), asyncpg.InternalClientError
        )
    return str(state).startswith(_PASSING_CLASSES) or state == "55P03"
