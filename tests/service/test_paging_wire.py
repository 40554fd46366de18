"""Pages as other servers write them, and callers that are slow or leave, on raw sockets."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import time
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest
from tests.conftest import wait_until
from tests.service.wire import Answer

ALL = b"Broker-Paginate: all"


@pytest.fixture(scope="module")
def more_settings(upstream) -> dict[str, str]:
    return {"IGNITION_API_URL": f"http://127.0.0.1:{upstream.port}"}


def answer(body: bytes, *headers: bytes) -> bytes:
    lines = [
        b"HTTP/1.1 200 OK",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def page(rows: bytes, cursor: str | None) -> bytes:
    pagination = {"has_more": cursor is not None, "next_cursor": cursor, "limit": 1}
    meta = json.dumps({"pagination": pagination}, indent=2).encode()
    return b'{\r\n  "data": [%b],\r\n  "meta": %b\r\n}\n' % (rows, meta)


def cursor_of(exchange) -> str | None:
    query = parse_qs(urlsplit(exchange.target.decode("ascii")).query)
    return query.get("cursor", [None])[0]


def plain(raw) -> bytes:
    """The body without its chunks."""
    assert raw.values(b"transfer-encoding") == [b"chunked"]
    body, rest = b"", raw.body
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if int(size, 16) == 0:
            return body
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]


def test_rows_come_byte_for_byte_whatever_their_pages_look_like(upstream, caller):
    numbers = b'{"n": 1.10, "big": 123456789012345678901234567890,\n  "e": 1E400}'
    text = '{"t": "é \\u00e9 \\ud83d \\n \\/ 🎉"}'.encode()
    cursor = 'a/b?c=d&e=é "f"+%41 \U0001f389'
    pages = {
        None: answer(page(numbers + b"\n,\n\n" + text, cursor)),
        cursor: answer(
            gzip.compress(page(b'[1,\r\n2], {"broker":{}}', "3")), b"Content-Encoding: gzip"
        ),
        "3": answer(page(b"\r\n", None)),
    }

    async def script(exchange) -> None:
        await exchange.send(pages[cursor_of(exchange)])

    upstream.plays(script)
    got = caller.call(b"GET /list?a=%2F&b=+", ALL, b"Accept-Encoding: br")
    assert got.status == 200
    assert got.values(b"content-type") == [b"application/x-ndjson"]
    assert plain(got).split(b"\n") == [
        numbers.replace(b"\n", b""),
        text,
        b"[1,2]",
        b'{ "broker":{}}',
        b'{"broker":{"complete":true,"cursor":null,"rows":4,"pages":3}}',
        b"",
    ]
    assert upstream.exchanges[0].target == b"/list?a=%2F&b=+"
    for exchange in upstream.exchanges:
        assert exchange.target.startswith(b"/list?a=%2F&b=+")
        assert exchange.values(b"accept-encoding") == [b"identity"]
        assert exchange.values(b"broker-paginate") == []


@pytest.mark.parametrize(
    "raw",
    [
        answer(b'{"proposals": []}'),
        answer(b'{"data": [1], "meta": {}}', b"ETag: x"),
        answer(page(b"1", None) + b"x"),
        b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: 3\r\n\r\na,b",
        b"HTTP/1.1 429 Too Many\r\nRetry-After: 5\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
    ],
)
def test_an_answer_of_another_form_is_the_same_with_the_header_and_without(upstream, caller, raw):
    upstream.answers(raw)
    without, with_header = caller.call(b"GET /x"), caller.call(b"GET /x", ALL)

    def told(got):
        return [line for line in got.lines if not line.lower().startswith(b"x-request-id")]

    assert (with_header.status, with_header.body) == (without.status, without.body)
    assert told(with_header) == told(without)


def test_a_large_answer_that_is_no_page_streams_through(upstream, caller):
    body = b'{"data": [' + b" " * (40 << 20) + b"]}"
    upstream.answers(answer(body))
    assert caller.call(b"GET /x", ALL).body == body


ROW = b'"%b"' % (b"x" * (1 << 20))


class EndlessPages:
    """Of a megabyte each."""

    def __init__(self, upstream) -> None:
        self.upstream = upstream
        upstream.plays(self.script)

    async def script(self, exchange) -> None:
        number = int(cursor_of(exchange) or 0)
        await exchange.send(answer(page(ROW, str(number + 1))))

    @property
    def asked(self) -> int:
        return len(self.upstream.exchanges)

    def until_it_rests(self) -> int:
        """How many pages were asked for when no more are."""
        while True:
            asked = self.asked
            time.sleep(0.5)
            if asked == self.asked:
                return asked


def test_no_page_is_asked_for_before_the_last_one_was_taken(upstream, caller):
    pages = EndlessPages(upstream)
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        slow.connect(("127.0.0.1", caller.port))
        slow.sendall(caller.head(b"GET /x", ALL))
        asked = pages.until_it_rests()
        # What the kernel's buffers hold, and one page.
        assert 1 <= asked <= 8
        taken = 0
        while taken < 10 * len(ROW):
            taken += len(slow.recv(1 << 20))
        assert asked < pages.until_it_rests() <= asked + 12


def test_a_hundred_megabytes_of_pages_take_the_memory_of_one(upstream, caller, broker):
    EndlessPages(upstream)
    process = psutil.Process(broker.process.pid)
    with caller.connect() as taking:
        taking.sendall(caller.head(b"GET /x", ALL))
        taken, sizes = 0, []
        while taken < 100 * len(ROW):
            taken += len(taking.recv(1 << 20))
            sizes.append(process.memory_info().rss)
    assert max(sizes) - sizes[0] < 30 * len(ROW)


def test_a_caller_that_leaves_is_asked_for_no_longer(upstream, caller):
    pages = EndlessPages(upstream)
    with caller.connect() as leaving:
        leaving.sendall(caller.head(b"GET /x", ALL))
        while pages.asked < 5:
            leaving.recv(1 << 20)
        leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    left_at = pages.asked
    time.sleep(0.3)
    asked = pages.asked
    assert asked <= left_at + 3
    time.sleep(0.5)
    assert pages.asked == asked
    upstream.answers(answer(b"{}"))
    assert caller.call(b"GET /x", ALL).body == b"{}"


def test_a_page_that_is_too_large_is_told_and_not_taken_for_the_end(upstream, caller):
    async def script(exchange) -> None:
        if cursor_of(exchange) is None:
            await exchange.send(answer(page(b"1", "large")))
        else:
            await exchange.send(answer(page(b'"%b"' % (b"x" * (17 << 20)), "3")))

    upstream.plays(script)
    row, last, end = plain(caller.call(b"GET /x", ALL)).split(b"\n")
    assert (row, end) == (b"1", b"")
    told = json.loads(last)["broker"]
    assert (told["complete"], told["cursor"], told["rows"]) == (False, "large", 1)
    assert told["error"]["type"] == "urn:ignition-broker:page-unreadable"
    assert "16777216 bytes" in told["error"]["detail"]


def test_a_limit_that_the_api_states_is_waited_for(upstream, caller):
    refused = []

    async def script(exchange) -> None:
        if cursor_of(exchange) is None:
            await exchange.send(answer(page(b"1", "b")))
        elif not refused:
            refused.append(time.monotonic())
            await exchange.send(
                b"HTTP/1.1 429 Too Many\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
            )
        else:
            refused.append(time.monotonic())
            await exchange.send(answer(page(b"2", None)))

    upstream.plays(script)
    assert plain(caller.call(b"GET /x", ALL)).splitlines()[:2] == [b"1", b"2"]
    # Timers of the event loop count in milliseconds.
    assert refused[1] - refused[0] >= 0.99


def test_other_calls_are_answered_while_a_large_page_is_read(upstream, caller, broker):
    rows = b",".join([b'{"number":%d,"text":"%b"}' % (n, b"x" * 100) for n in range(100_000)])

    async def script(exchange) -> None:
        await exchange.send(answer(page(rows, None)))

    upstream.plays(script)
    with caller.connect() as connection, broker.client() as other:
        connection.sendall(caller.head(b"GET /x", ALL))
        wait_until(lambda: upstream.exchanges)
        longest = 0.0
        connection.settimeout(0)
        got = b""
        while not got.endswith(b"0\r\n\r\n"):
            began = time.monotonic()
            assert other.get("/healthz").status_code == 200
            longest = max(longest, time.monotonic() - began)
            try:
                while piece := connection.recv(1 << 20):
                    got += piece
            except BlockingIOError:
                pass
    assert plain(Answer(got)).count(b'{"number":') == 100_000
    assert longest < 0.25
