"""Streams through the proxy: at once, with flat memory, broken where they broke, ended when either
side goes away."""

from __future__ import annotations

import asyncio
import socket
import statistics
import struct
import time

import psutil
import pytest
from tests.conftest import wait_until
from tests.service.wire import Answer, receive

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def more_settings(upstream):
    return {"IGNITION_API_URL": f"http://127.0.0.1:{upstream.port}"}


def test_an_event_is_out_within_50_ms_of_coming_in(caller, upstream):
    sent_at = []

    async def script(exchange):
        await exchange.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(20):
            await asyncio.sleep(0.02)
            sent_at.append(time.monotonic())
            await exchange.send(b"9\r\ndata: x\n\n\r\n")
        await exchange.send(b"0\r\n\r\n")

    upstream.plays(script)
    came_at = []
    with caller.connect() as connection:
        connection.sendall(caller.head(b"GET /events"))
        receive(connection, b"\r\n\r\n")
        for _ in range(20):
            receive(connection, b"data: x\n\n\r\n")
            came_at.append(time.monotonic())
    delays = [came - sent for sent, came in zip(sent_at, came_at, strict=True)]
    print(f"event latency: median {statistics.median(delays) * 1000:.1f} ms")
    assert statistics.median(delays) < 0.05


def test_a_piece_of_a_body_goes_out_before_the_rest_has_come(caller, upstream):
    arrived = []

    async def script(exchange):
        arrived.append(await exchange.reader.readexactly(5))
        await exchange.reader.readexactly(5)
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    upstream.plays(script)
    with caller.connect() as connection:
        connection.sendall(caller.head(b"POST /x", b"Content-Length: 10") + b"first")
        wait_until(lambda: arrived == [b"first"], 1, "the first half's arrival")
        connection.sendall(b"later")
        assert Answer.read(connection).status == 200


async def waits_for_the_end(exchange):
    await exchange.wait_gone()


async def streams_without_end(exchange):
    await exchange.read_body()
    await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    watching = asyncio.create_task(exchange.wait_gone())
    while not watching.done():
        await exchange.send(b"5\r\nhello\r\n")
        await asyncio.sleep(0.01)


async def falls_silent_amid_its_answer(exchange):
    await exchange.read_body()
    await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    await exchange.wait_gone()


@pytest.mark.parametrize(
    ("script", "line", "headers", "body"),
    [
        (waits_for_the_end, b"GET /x", [], b""),
        (waits_for_the_end, b"POST /x", [b"Content-Length: 5"], b"whole"),
        (waits_for_the_end, b"POST /x", [b"Content-Length: 5000000"], b"a part"),
        (waits_for_the_end, b"POST /x", [b"Transfer-Encoding: chunked"], b"6\r\na part\r\n"),
        (streams_without_end, b"GET /x", [], b""),
        (streams_without_end, b"POST /x", [b"Content-Length: 5"], b"whole"),
        (falls_silent_amid_its_answer, b"GET /x", [], b""),
    ],
    ids=[
        "ahead of the answer",
        "after the body",
        "amid a sized body",
        "amid a chunked body",
        "while the answer streams",
        "while the answer to a body streams",
        "while the answer is silent",
    ],
)
def test_a_caller_that_goes_away_ends_the_upstream_request_within_a_second(
    caller, upstream, broker, script, line, headers, body
):
    upstream.plays(script)
    with caller.connect() as connection:
        connection.sendall(caller.head(line, *headers) + body)
        wait_until(lambda: upstream.exchanges, 2, "the request's arrival")
        if script is not waits_for_the_end:
            receive(connection, b"hello\r\n")
        time.sleep(0.1)
    left_at = time.monotonic()
    wait_until(lambda: upstream.last.gone_at, 2, "the upstream request's end")
    print(f"ended after {(upstream.last.gone_at - left_at) * 1000:.0f} ms")
    assert upstream.last.gone_at - left_at < 1
    assert len(upstream.exchanges) == 1
    assert "Exception in ASGI" not in broker.log_text()


def test_an_answer_that_breaks_off_short_of_its_length_is_not_complete(caller, upstream):
    async def script(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it")
        raise ConnectionError

    upstream.plays(script)
    answer = caller.call(b"GET /x")
    assert answer.values(b"content-length") == [b"100"]
    assert answer.body == b"half of it"


def test_an_answer_that_breaks_off_amid_its_chunks_is_not_complete(caller, upstream):
    async def script(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await exchange.send(b"5\r\nhello\r\n9\r\nhalf")
        raise ConnectionError

    upstream.plays(script)
    answer = caller.call(b"GET /x")
    assert answer.values(b"transfer-encoding") == [b"chunked"]
    assert b"hello" in answer.body
    assert not answer.body.endswith(b"0\r\n\r\n")


def reset(exchange) -> None:
    """RST, as of a process that is killed with bytes unread."""
    linger = struct.pack("ii", 1, 0)
    exchange.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    exchange.writer.transport.abort()


def test_an_answer_that_only_the_connections_end_delimits_is_complete_if_it_is_closed(
    caller, upstream
):
    async def script(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it")
        raise ConnectionError

    upstream.plays(script)
    answer = caller.call(b"GET /x")
    assert answer.body == b"9\r\nall of it\r\n0\r\n\r\n"


def test_an_answer_that_only_the_connections_end_delimits_is_not_complete_if_it_is_reset(
    caller, upstream
):
    async def script(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhalf of it")
        await asyncio.sleep(0.2)
        reset(exchange)
        raise ConnectionError

    upstream.plays(script)
    answer = caller.call(b"GET /x")
    assert answer.body == b"a\r\nhalf of it\r\n", "no last chunk: the caller sees that it broke off"


def test_an_answer_that_comes_ahead_of_the_bodys_end_goes_back_at_once(caller, upstream):
    async def script(exchange):
        await exchange.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge")
        raise ConnectionError

    upstream.plays(script)
    with caller.connect() as connection:
        connection.sendall(caller.head(b"POST /x", b"Content-Length: 5000000") + b"a part")
        answer = receive(connection, b"large")
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_an_early_401_to_a_body_that_fits_the_limit_is_mended_while_the_body_comes(
    caller, upstream
):
    async def script(exchange):
        if len(upstream.exchanges) == 1:
            await exchange.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            await exchange.wait_gone()
        else:
            await exchange.read_body()
            await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    upstream.plays(script)
    with caller.connect() as connection:
        connection.sendall(caller.head(b"POST /x", b"Content-Length: 12") + b"first,")
        wait_until(lambda: len(upstream.exchanges) == 2, 3, "the replay")
        connection.sendall(b"second")
        assert Answer.read(connection).status == 200
    assert upstream.last.body == b"first,second"
    tokens = {exchange.values(b"authorization")[0] for exchange in upstream.exchanges}
    assert len(tokens) == 2


def test_100_mb_go_up_and_down_with_flat_memory(caller, upstream, broker):
    size = 100 * MEGABYTE

    async def script(exchange):
        await exchange.read_body(is_kept=False)
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(100):
            await exchange.send(bytes(MEGABYTE))

    upstream.plays(script)
    server = psutil.Process(broker.process.pid)
    before = peak = server.memory_info().rss
    with caller.connect() as connection:
        connection.sendall(caller.head(b"POST /x", b"Content-Length: %d" % size))
        for _ in range(100):
            connection.sendall(bytes(MEGABYTE))
            peak = max(peak, server.memory_info().rss)
        received, sample_at = 0, 0
        while piece := connection.recv(1 << 20):
            received += len(piece)
            if received > sample_at:
                sample_at += MEGABYTE
                peak = max(peak, server.memory_info().rss)
    assert upstream.last.body_bytes == size
    assert size < received < size + 1000
    print(f"grew by {(peak - before) / MEGABYTE:.1f} MB")
    assert peak - before < 20 * MEGABYTE
