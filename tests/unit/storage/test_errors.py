from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl

import asyncpg
import pytest

# These two define errors of their own, which `errors_of` has to find whatever else was imported.
import sqlalchemy.ext.asyncio
import sqlalchemy.orm  # noqa: F401
from sqlalchemy import exc

from ignition_broker.storage.condition_names import CLASSES, condition
from ignition_broker.storage.errors import (
    SchemaUnfit,
    StorageError,
    StorageFault,
    StorageUnavailable,
    translated,
)


def driver_error(sqlstate: str | None) -> exc.DBAPIError:
    original = Exception("said by the driver")
    original.sqlstate = sqlstate  # type: ignore[attr-defined]
    return exc.DBAPIError("SELECT 1", {}, original)


def broken_amid_a_statement() -> exc.DBAPIError:
    """As SQLAlchemy wraps it: seen where a backend was terminated between prepare and execute."""
    error = driver_error(None)
    assert error.orig is not None
    error.orig.__cause__ = asyncpg.InternalClientError("cannot switch to state 12")
    return error


@pytest.mark.parametrize(
    "error",
    [
        broken_amid_a_statement(),
        driver_error("57P01"),
        driver_error("08006"),
        driver_error("53300"),
        driver_error("40001"),
        driver_error("55P03"),
        driver_error("25006"),
        asyncpg.LockNotAvailableError("canceling statement due to lock timeout"),
        asyncpg.ReadOnlySQLTransactionError("cannot execute UPDATE in a read-only transaction"),
        asyncpg.InvalidCachedStatementError("cached plan must not change result type"),
        exc.InterfaceError("SELECT 1", {}, Exception("connection is closed")),
        exc.TimeoutError("the pool is full"),
        asyncpg.CannotConnectNowError("starting up"),
        asyncpg.InterfaceError("the connection is closed"),
        asyncpg.InternalClientError("got result for unknown protocol state"),
        ConnectionRefusedError(),
        TimeoutError(),
        asyncio.IncompleteReadError(b"", 1),
    ],
)
def test_temporary_errors_are_unavailable(error):
    with pytest.raises(StorageUnavailable), translated():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        driver_error(None),
        driver_error("23505"),
        asyncpg.UniqueViolationError("duplicate key"),
        exc.ArgumentError("odd"),
    ],
)
def test_errors_of_our_own_are_faults(error):
    with pytest.raises(StorageFault), translated():
        raise error


@pytest.mark.parametrize(
    ("error", "mend"),
    [
        (driver_error("42P01"), "run: migrate"),
        (asyncpg.UndefinedTableError("no such table"), "run: migrate"),
        (asyncpg.UndefinedColumnError("no such column"), "run: migrate"),
        (asyncpg.InsufficientPrivilegeError("permission denied"), "needs rights"),
    ],
)
def test_schema_errors_are_unavailable_until_an_operator_fixes_them(error, mend):
    with pytest.raises(SchemaUnfit, match=mend), translated():
        raise error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (driver_error("55P03"), "lock not available (SQLSTATE 55P03)"),
        (asyncpg.LockNotAvailableError("…"), "lock not available (SQLSTATE 55P03)"),
        (driver_error("57014"), "query canceled (SQLSTATE 57014)"),
        (driver_error("53XYZ"), "insufficient resources (SQLSTATE 53XYZ)"),
        (driver_error("23505"), "unique violation (SQLSTATE 23505)"),
        (driver_error("XX000"), "internal error (SQLSTATE XX000)"),
        (driver_error("QQ123"), "unknown condition (SQLSTATE QQ123)"),
        (OSError(errno.EMFILE, "Too many open files"), "too many open files (EMFILE)"),
        (OSError(errno.ENFILE, "…"), "too many open files in system (ENFILE)"),
        (
            OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] the same"),
            "connection refused (ECONNREFUSED)",
        ),
        (OSError("odd"), "the connection failed (OSError)"),
        (socket.gaierror(socket.EAI_NONAME, "…"), "its host is not found (gaierror)"),
        (ssl.SSLError(1, "…"), "TLS failed: SSLError"),
        (TimeoutError(), "timed out"),
    ],
)
def test_an_error_has_a_name_that_an_operator_can_look_up(error, said):
    with pytest.raises(StorageError) as raised, translated():
        raise error
    assert str(raised.value) == said


def test_every_class_of_sqlstate_that_the_driver_knows_has_a_name():
    known = {kind.sqlstate for kind in errors_of(asyncpg.PostgresError) if kind.sqlstate}
    assert {state[:2] for state in known} <= CLASSES.keys()
    assert len(known) > 200
    for state in known:
        assert re.fullmatch(r"[\w/ ]+ \(SQLSTATE \w{5}\)", condition(state)), condition(state)


def errors_of(library: type[Exception]) -> list[type[Exception]]:
    below = [kind for child in library.__subclasses__() for kind in errors_of(child)]
    return [library, *below]


@pytest.mark.parametrize("kind", errors_of(exc.SQLAlchemyError) + errors_of(asyncpg.PostgresError))
def test_no_error_of_the_libraries_gets_through_untranslated(kind):
    """Fails when a library grows one that nobody mapped."""
    error = kind.__new__(kind)
    error.orig = None  # type: ignore[attr-defined]
    error.connection_invalidated = False  # type: ignore[attr-defined]
    with pytest.raises((StorageFault, StorageUnavailable)), translated():
        raise error
