"""Several requests of one connection: answered in order, whole, and without a word in the log for
whoever leaves, or sends behind them what is no request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time

import pytest
from tests.conftest import wait_until
from tests.service.wire import OK, Answer, receive

ALIVE = b"GET /healthz HTTP/1.1\r\nHost: broker\r\n\r\n"
PIECES = 40
JUNK = {
    "words": b"this is no request\r\n\r\n",
    "bytes": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "a method": b"BREW /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header": b"GET /healthz HTTP/1.1\r\nHost x\r\n\r\n",
    "a target": b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
    "a target in raw bytes": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "a version": b"GET / HTTP/3.7\r\nHost: x\r\n\r\n",
    "two lengths": b"POST /login HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "two framings": b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1001 + b"\r\n",
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a tunnel": b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.fixture(scope="module")
def more_settings(upstream):
    return {"IGNITION_API_URL": f"http://127.0.0.1:{upstream.port}"}


@pytest.fixture(autouse=True)
def logged(broker):
    """What was logged meanwhile at INFO or above, which is no traceback."""
    before = len(broker.log_text())

    def lines() -> list[str]:
        new = [json.loads(line) for line in broker.log_text()[before:].splitlines()]
        return [line["event"] for line in new if line["level"] != "debug"]

    yield lines
    wait_until(lambda: alive(broker))
    assert not broker.tracebacks()


def alive(broker) -> bool:
    with connected(broker) as connection:
        connection.sendall(ALIVE)
        return receive(connection, b'{"status":"alive"}').startswith(b"HTTP/1.1 200 ")


def connected(broker) -> socket.socket:
    return socket.create_connection(("127.0.0.1", broker.port), timeout=10)


def reset(connection: socket.socket) -> None:
    """The other side sees an error, where a close would be an end in order."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def answers(raw: bytes) -> list[Answer]:
    return [Answer(b"HTTP/1.1 " + each) for each in raw.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize("leave", [reset, socket.socket.close], ids=["a reset", "a close"])
@pytest.mark.parametrize(
    "request_bytes",
    [
        ALIVE * 3,
        ALIVE + b"GET /login HTTP/1.1\r\nHost: x\r\n\r\n" + ALIVE,
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 5,
        b"GET /token/acme HTTP/1.1\r\nHost: x\r\n\r\n" * 3,
        b"GET /proxy/acme/x HTTP/1.1\r\nHost: x\r\n\r\n" * 3,
        b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nkey=" + ALIVE,
        b"POST /login HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
        ALIVE + b"nonsense\r\n\r\n",
    ],
    ids=["alive", "pages", "metrics", "tokens", "proxied", "half a body", "100", "nonsense"],
)
def test_a_caller_that_leaves_with_its_requests_pipelined_leaves_no_trace(
    broker, request_bytes, leave, logged
):
    for _ in range(PIECES):
        connection = connected(broker)
        connection.sendall(request_bytes)
        leave(connection)
    wait_until(lambda: alive(broker))
    assert len(logged()) <= (PIECES if b"nonsense" in request_bytes else 0)


@pytest.mark.parametrize("leave", [reset, socket.socket.close], ids=["a reset", "a close"])
def test_a_caller_that_leaves_during_the_apis_answers_leaves_no_trace(
    broker, caller, upstream, leave, logged
):
    """The first of three calls is being streamed when the caller goes."""
    gone = []

    async def script(exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(200):
                await exchange.send(b"4000\r\n" + bytes(0x4000) + b"\r\n")
                await asyncio.sleep(0.01)
        await exchange.wait_gone()
        gone.append(exchange.gone_at)

    upstream.plays(script)
    call = caller.head(b"GET /x", is_kept=True)
    for _ in range(5):
        connection = connected(broker)
        connection.sendall(call * 3)
        assert connection.recv(1 << 10).startswith(b"HTTP/1.1 200 ")
        leave(connection)
    wait_until(lambda: len(gone) == 5, what="that all calls are given up")
    assert len(upstream.exchanges) == 5, "those behind the first are not made for nobody"
    assert logged() == []


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
@pytest.mark.parametrize("requests", [1, 3])
def test_bytes_that_are_no_request_are_refused_after_complete_answers(
    broker, logged, junk, requests
):
    with connected(broker) as connection:
        connection.sendall(ALIVE * requests + junk + ALIVE)
        came = answers(Answer.read(connection).raw)
    assert [answer.status for answer in came[:-1]] == [200] * requests
    assert [answer.body for answer in came[:-1]] == [b'{"status":"alive"}'] * requests
    last = came[-1]
    assert last.status == (431 if junk.count(b"X: y") else 400)
    assert last.values(b"content-type") == [b"application/problem+json"]
    assert last.values(b"connection") == [b"close"]
    problem = json.loads(last.body)
    assert problem["status"] == last.status
    assert last.values(b"x-request-id") == [problem["request_id"].encode()]
    assert len(logged()) <= 1


def test_a_slow_answer_is_waited_for_before_what_follows_is_refused(caller, upstream, logged):
    async def script(exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none")
        await asyncio.sleep(0.3)
        await exchange.send(b"two")

    upstream.plays(script)
    call = caller.head(b"GET /x", is_kept=True)
    for pieces in ([call + call + b"junk \x00\r\n\r\n"], [call, call, b"junk \x00\r\n\r\n"]):
        with caller.connect() as connection:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.05)
            came = answers(Answer.read(connection).raw)
        assert [answer.status for answer in came] == [200, 200, 400]
        assert [answer.body for answer in came[:2]] == [b"onetwo"] * 2
    assert logged() == ["request_not_readable"] * 2


def test_nothing_after_a_request_with_connection_close_is_answered(broker, logged):
    closing = ALIVE.replace(b"Host", b"Connection: close\r\nHost")
    for behind in (ALIVE, b"nonsense\r\n\r\n", b"\x00" * 1000):
        with connected(broker) as connection:
            connection.sendall(closing + behind)
            assert len(answers(Answer.read(connection).raw)) == 1
    assert len(logged()) <= 2


CHUNKED = b"Transfer-Encoding: chunked"


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_a_body_that_breaks_off_in_nonsense_is_refused_in_its_turn(caller, upstream, logged, ahead):
    upstream.answers(OK)
    before = caller.head(b"GET /before", is_kept=True) * ahead
    broken = caller.head(b"POST /x", CHUNKED, is_kept=True)
    for pieces in ([before + broken + b"5\r\nhello\r\nzz\r\n"], [before + broken, b"zz\r\n"]):
        with caller.connect() as connection:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.1)
            came = answers(Answer.read(connection).raw)
        assert [answer.status for answer in came] == [200] * ahead + [400]
    assert logged() == ["request_not_readable"] * 2
    # No such body is passed on as if it were complete.
    posts = [each for each in upstream.exchanges if each.head.startswith(b"POST")]
    assert not any(each.body.endswith(b"0\r\n\r\n") for each in posts)


@pytest.mark.parametrize("leave", [reset, socket.socket.close, None], ids=["reset", "close", "400"])
@pytest.mark.parametrize("framing", [b"Content-Length: 86", CHUNKED], ids=["counted", "chunked"])
def test_a_refresh_whose_condition_broke_off_is_not_an_unconditional_one(
    broker, fake, caller, framing, leave
):
    head = b"POST /token/acme/refresh HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
    before = fake.counters()
    with connected(broker) as connection:
        connection.sendall(head + broker.admin_key.encode() + b"\r\n" + framing + b"\r\n\r\n")
        if leave is None:
            connection.sendall(b"zz\r\n")
            if framing is CHUNKED:
                assert Answer.read(connection).status == 400
        else:
            time.sleep(0.05)
            leave(connection)
    wait_until(lambda: alive(broker))
    assert fake.counters() == before


def test_an_answer_ahead_of_its_broken_body_is_not_followed_by_another(broker):
    """It would be taken for the answer to the next request."""
    head = b"POST /token/acme/refresh HTTP/1.1\r\nHost: x\r\n" + CHUNKED + b"\r\n\r\n"
    with connected(broker) as connection:
        connection.sendall(head)
        first = receive(connection, b"}")
        assert first.startswith(b"HTTP/1.1 401 ")
        connection.sendall(b"zz\r\n")
        assert Answer.read(connection).raw == b""


def test_a_request_behind_one_answered_early_is_read_and_what_is_none_is_refused(broker):
    head = b"POST /token/acme/refresh HTTP/1.1\r\nHost: x\r\n" + CHUNKED + b"\r\n\r\n"
    with connected(broker) as connection:
        connection.sendall(head)
        assert receive(connection, b"}").startswith(b"HTTP/1.1 401 ")
        connection.sendall(b"5\r\nhello\r\n0\r\n\r\n" + ALIVE + b"nonsense\r\n\r\n")
        came = answers(Answer.read(connection).raw)
    assert [answer.status for answer in came] == [200, 400]


def test_the_answer_that_breaks_off_is_the_one_that_is_ended(caller, upstream, logged):
    """Not the newest of those pipelined behind it."""

    async def script(exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await asyncio.sleep(0.2)
        raise ConnectionResetError

    upstream.plays(script)
    call = caller.head(b"GET /x", is_kept=True)
    with caller.connect() as connection:
        connection.sendall(call * 3)
        came = answers(Answer.read(connection).raw)
    assert [answer.body for answer in came] == [b"half"]
    assert len(upstream.exchanges) == 1
    assert logged() == ["answer_broken_off"]


# HTTP/1.0


@pytest.mark.parametrize("more", [b"", b"Connection: keep-alive\r\n", b"Host: x\r\n"])
@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nonetwo",
        b"HTTP/1.0 200 OK\r\n\r\nonetwo",
    ],
    ids=["chunked", "counted", "until the end"],
)
def test_a_caller_of_http_1_0_is_sent_no_chunks(caller, upstream, more, reply):
    async def script(exchange) -> None:
        await exchange.read_body()
        await exchange.send(reply)
        exchange.writer.close()

    upstream.plays(script)
    request = caller.head(b"GET /x", is_kept=True).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    answer = caller.send(request.replace(b"Host: broker\r\n", more))
    assert answer.status == 200
    assert not answer.values(b"transfer-encoding")
    assert answer.values(b"connection") == [b"close"]
    assert answer.body == b"onetwo"


@pytest.mark.parametrize("path", [b"/healthz", b"/login", b"/openapi.json", b"/metrics", b"/none"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_the_brokers_own_routes_send_no_chunks_to_http_1_0(broker, path, method):
    with connected(broker) as connection:
        connection.sendall(method + b" " + path + b" HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = Answer.read(connection)
    assert not answer.values(b"transfer-encoding")
    assert answer.values(b"connection") == [b"close"]
    length = answer.values(b"content-length")
    if method == b"GET":
        assert length in ([], [b"%d" % len(answer.body)])
    else:
        assert answer.body == b""


def test_a_caller_of_http_1_0_sees_that_an_answer_broke_off(caller, upstream):
    """A close would be the answer's proper end."""

    async def script(exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        await asyncio.sleep(0.2)
        raise ConnectionResetError

    upstream.plays(script)
    request = caller.head(b"GET /x", is_kept=True).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    with caller.connect() as connection:
        connection.sendall(request)
        with pytest.raises(ConnectionResetError):
            read_to_end(connection)


def read_to_end(connection: socket.socket) -> None:
    while connection.recv(1 << 16):
        pass


def test_a_caller_of_http_1_0_is_not_told_to_continue(caller, upstream):
    upstream.answers(OK)
    request = caller.head(b"POST /x", b"Content-Length: 5", b"Expect: 100-continue", is_kept=True)
    answer = caller.send(request.replace(b"HTTP/1.1", b"HTTP/1.0", 1) + b"hello")
    assert answer.status == 200
    assert answer.raw.count(b"HTTP/1.1 ") == 1
