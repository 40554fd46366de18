from __future__ import annotations

import asyncio

import asyncpg
import pytest
from sqlalchemy import exc

from ignition_broker.storage.errors import StorageFault, StorageUnavailable, translated


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
def test_what_passes_is_unavailable(error):
    with pytest.raises(StorageUnavailable), translated():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        driver_error(None),
        driver_error("42P01"),
        driver_error("23505"),
        asyncpg.UndefinedTableError("no such table"),
        exc.ArgumentError("odd"),
    ],
)
def test_what_is_ours_to_mend_is_a_fault(error):
    with pytest.raises(StorageFault), translated():
        raise error


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
