from __future__ import annotations

import pytest
from sqlalchemy import text

from ignition_broker.storage.connection import Connection, Rows


class Driver:
    """Takes down what it is sent."""

    async def fetch(self, sql: str, *arguments: object) -> list[list[object]]:
        self.sent = (sql, arguments)
        return []


async def test_a_name_that_stands_twice_is_sent_once_and_in_the_order_of_its_number():
    driver = Driver()
    statement = text("SELECT :b, x::int, 'a:c', CAST(:a AS text), :b WHERE x LIKE '5%'")
    await Connection(driver).execute(statement, {"a": "one", "b": 2})
    assert driver.sent == (
        "SELECT $1, x::int, 'a:c', CAST($2 AS text), $1 WHERE x LIKE '5%'",
        (2, "one"),
    )


async def test_a_value_that_a_statement_lacks_is_an_error_of_ours():
    with pytest.raises(KeyError):
        await Connection(Driver()).execute(text("SELECT :a, :b"), {"a": 1})


def test_more_rows_than_one_or_none_are_never_passed_over():
    with pytest.raises(ValueError, match="more than one row"):
        Rows([["a"], ["b"]]).one_or_none()
    with pytest.raises(ValueError, match="no row"):
        Rows([]).scalar_one()
