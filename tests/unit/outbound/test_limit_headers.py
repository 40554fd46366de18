"""Whether an answer tells of a rate limit, as both versions of HTTP note it."""

from __future__ import annotations

import asyncio

import httpcore
import pytest

from ignition_broker.outbound.exchange import Exchange
from ignition_broker.outbound.http1_connection import Connection
from ignition_broker.outbound.http2 import Http2Answer

CASES = [
    ((b"Content-Type", b"text/plain"), False),
    ((b"Retry-After", b"3"), False),
    ((b"X-RateLimit-Remaining", b"7"), True),
    ((b"x-rate-limit-reset", b"60"), True),
    ((b"RateLimit", b'"hour";r=7;t=60'), True),
]


@pytest.mark.parametrize(("header", "expected"), CASES)
async def test_of_http_1(header, expected):
    loop = asyncio.get_running_loop()
    connection = Connection(loop, lambda _free: None, lambda _lost: None, "the API")
    exchange = Exchange(connection, loop, is_bodiless=False, idle_timeout_seconds=1)
    connection.exchange = exchange
    name, value = header
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n" + name + b": " + value + b"\r\n\r\n"
    connection._parser.feed_data(head)
    assert exchange.has_answered
    assert exchange.tells_limit is expected


async def test_what_an_interim_answer_tells_is_not_the_answers():
    loop = asyncio.get_running_loop()
    connection = Connection(loop, lambda _free: None, lambda _lost: None, "the API")
    exchange = Exchange(connection, loop, is_bodiless=False, idle_timeout_seconds=1)
    connection.exchange = exchange
    connection._parser.feed_data(
        b"HTTP/1.1 103 Early Hints\r\nX-RateLimit-Remaining: 7\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"
    )
    assert exchange.status == 200
    assert not exchange.tells_limit


@pytest.mark.parametrize(("header", "expected"), CASES)
def test_of_http_2(header, expected):
    answer = Http2Answer(httpcore.Response(200, headers=[header]))
    assert answer.tells_limit is expected
