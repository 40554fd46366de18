"""What an exchange passes on, and when it makes the API wait (back pressure)."""

from __future__ import annotations

import asyncio

import pytest

from ignition_broker.outbound.errors import TimedOut, Unreachable
from ignition_broker.outbound.exchange import NEVER, READ_AHEAD_BYTES, Exchange


class Line:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def hold(self) -> None:
        self.calls.append("hold")

    def resume(self) -> None:
        self.calls.append("resume")

    def abort(self) -> None:
        self.calls.append("abort")


def begun() -> tuple[Exchange, Line]:
    line = Line()
    loop = asyncio.get_running_loop()
    return Exchange(line, loop, is_bodiless=False, idle_timeout_seconds=5), line


async def test_pieces_that_came_together_are_read_together_and_the_end_is_empty():
    exchange, _line = begun()
    exchange.begin_answer(200, [])
    exchange.take(b"a")
    exchange.take(b"b")
    exchange.complete()
    assert [await exchange.read(), await exchange.read(), await exchange.read()] == [
        b"ab",
        b"",
        b"",
    ]


async def test_the_api_waits_while_much_lies_unread_and_goes_on_once_it_is_read():
    exchange, line = begun()
    exchange.begin_answer(200, [])
    exchange.take(b"x" * READ_AHEAD_BYTES)
    assert line.calls == []
    exchange.take(b"x")
    exchange.take(b"x")
    assert line.calls == ["hold"]
    assert len(await exchange.read()) == READ_AHEAD_BYTES + 2
    assert line.calls == ["hold", "resume"]


async def test_what_came_ahead_of_a_break_is_read_before_it_is_raised():
    exchange, line = begun()
    exchange.begin_answer(200, [])
    exchange.take(b"half")
    exchange.fail(Unreachable("gone"))
    exchange.fail(TimedOut("too late to matter"))
    assert await exchange.read() == b"half"
    with pytest.raises(Unreachable):
        await exchange.read()
    assert line.calls == ["abort"]


async def test_an_exchange_that_is_over_is_not_cut_again():
    exchange, line = begun()
    exchange.begin_answer(200, [])
    exchange.complete()
    exchange.close()
    await exchange.aclose()
    assert line.calls == []


async def test_only_a_wait_has_a_deadline():
    exchange, _line = begun()
    exchange.begin_answer(200, [])
    await exchange.answered()
    assert exchange.deadline == NEVER
    reading = asyncio.create_task(exchange.read())
    await asyncio.sleep(0)
    assert exchange.deadline < asyncio.get_running_loop().time() + 6
    exchange.take(b"x")
    assert await reading == b"x"
    assert exchange.deadline == NEVER
