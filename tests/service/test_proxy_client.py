"""The proxy's own HTTP/1.1 client against an API that answers oddly, closes early or is full."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.service.test_proxy_failures import problem
from tests.service.wire import OK

CONNECTIONS = 3


@pytest.fixture(scope="module")
def more_settings(upstream):
    return {
        "IGNITION_API_URL": f"http://127.0.0.1:{upstream.port}/base",
        "BROKER_PROXY_TIMEOUT": "2",
        "BROKER_PROXY_IDLE_TIMEOUT": "1",
        "BROKER_PROXY_CONNECT_TIMEOUT": "1",
        "BROKER_PROXY_CONNECTIONS": str(CONNECTIONS),
    }


@pytest.fixture(scope="module")
def service(broker, caller):
    with broker.client(caller.key) as client:
        yield client


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX Y: z\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 400_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 1001 + b"\r\n",
        *[
            b"HTTP/1.1 %b Odd\r\nContent-Length: 2\r\n\r\nok" % status
            for status in (b"1000", b"42", b"-1", b"")
        ],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02\x50",
    ],
    ids=lambda answer: repr(answer[:60]),
)
def test_an_answer_that_is_no_http_is_the_apis_fault_and_its_connection_is_done_with(
    service, upstream, broker, answer
):
    upstream.answers(answer)
    assert problem(service.get("/proxy/acme/x")) == (
        502,
        "upstream-unreachable",
        "upstream-unreachable",
    )
    used = upstream.last.connection
    upstream.answers(OK)
    assert service.get("/proxy/acme/x").status_code == 200
    assert upstream.last.connection != used
    assert not broker.tracebacks()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("status", [b"600", b"999", b"099", b"001", b"000"])
def test_an_answer_with_an_invalid_status_is_the_apis_fault(
    service, upstream, broker, method, status
):
    head = b"HTTP/1.1 " + status + b" Odd\r\nContent-Length: 2\r\n\r\n"
    upstream.answers(head + (b"" if method == "HEAD" else b"ok"))
    answer = service.request(method, "/proxy/acme/x")
    assert (answer.status_code, answer.headers["broker-error"]) == (502, "upstream-unreachable")
    assert len(upstream.exchanges) == 1, "it may have been carried out"
    upstream.answers(OK)
    assert service.get("/proxy/acme/x").text == "ok"
    assert not broker.tracebacks()


@pytest.mark.parametrize("status", [b"299", b"418", b"599"])
def test_a_status_that_nobody_named_is_passed_on(service, upstream, status):
    upstream.answers(b"HTTP/1.1 " + status + b" Odd\r\nContent-Length: 2\r\n\r\nok")
    answer = service.get("/proxy/acme/x")
    assert (answer.status_code, answer.text) == (int(status), "ok")


@pytest.mark.parametrize("interim", [b"100 Continue", b"103 Early Hints", b"102 Processing"])
def test_an_interim_answer_is_passed_over(service, upstream, interim):
    upstream.answers(b"HTTP/1.1 " + interim + b"\r\nLink: </a>\r\n\r\n" + OK)
    answer = service.get("/proxy/acme/x")
    assert (answer.status_code, answer.text) == (200, "ok")
    assert "link" not in answer.headers


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("GET", OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_unexpected_bytes_are_nobodys_answer(service, upstream, method, answer):
    upstream.answers(answer)
    first = service.request(method, "/proxy/acme/x")
    assert first.text in {"ok", ""}
    used = upstream.last.connection
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine")
    assert service.get("/proxy/acme/x").text == "mine"
    assert upstream.last.connection != used


def test_unexpected_bytes_on_an_idle_connection_close_it(service, upstream):
    async def script(exchange) -> None:
        await exchange.send(OK)
        await asyncio.sleep(0.1)
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")

    upstream.plays(script)
    assert service.get("/proxy/acme/x").text == "ok"
    used = upstream.last.connection
    time.sleep(0.3)
    upstream.answers(OK)
    assert service.get("/proxy/acme/x").text == "ok"
    assert upstream.last.connection != used


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_connections_are_used_again(service, upstream, method):
    upstream.answers(OK)
    for _ in range(5):
        assert service.request(method, "/proxy/acme/x").status_code == 200
    assert len({exchange.connection for exchange in upstream.exchanges}) == 1


@pytest.mark.parametrize(
    ("method", "sent", "status"),
    [("GET", 2, 200), ("PUT", 2, 200), ("DELETE", 2, 200), ("POST", 1, 502), ("PATCH", 1, 502)],
)
def test_a_kept_connection_that_turns_out_dead_is_tried_once_more_where_twice_does_no_harm(
    service, upstream, method, sent, status
):
    upstream.answers(OK)
    assert service.get("/proxy/acme/warm").status_code == 200

    async def script(exchange) -> None:
        await exchange.read_body()
        if len(upstream.exchanges) == 1:
            raise ConnectionResetError
        await exchange.send(OK)

    upstream.plays(script)
    content = b"x" if method in {"PUT", "POST", "PATCH"} else None
    answer = service.request(method, "/proxy/acme/x", content=content)
    assert (answer.status_code, len(upstream.exchanges)) == (status, sent)
    assert len({exchange.connection for exchange in upstream.exchanges}) == sent


def test_a_new_connection_that_breaks_without_an_answer_is_not_tried_again(service, upstream):
    async def script(exchange) -> None:
        raise ConnectionResetError

    upstream.plays(script)
    # The first call uses up the kept ones and is then tried again on a new one.
    service.get("/proxy/acme/x")
    upstream.exchanges.clear()
    assert problem(service.get("/proxy/acme/x"))[1] == "upstream-unreachable"
    assert len(upstream.exchanges) == 1


def test_silence_amid_an_answer_breaks_it_off(caller, upstream, broker):
    async def script(exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await asyncio.sleep(5)

    upstream.plays(script)
    began = time.monotonic()
    answer = caller.call(b"GET /x")
    assert answer.body == b"half"
    assert 0.8 < time.monotonic() - began < 2.5
    logged = [line for line in broker.log_text().splitlines() if "answer_broken_off" in line]
    assert "fell silent for 1 s" in logged[-1]
    assert not broker.tracebacks()


def test_an_answer_in_many_pieces_with_pauses_is_whole(service, upstream):
    async def script(exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(5):
            await asyncio.sleep(0.5)
            await exchange.send(b"1\r\n%d\r\n" % number)
        await exchange.send(b"0\r\n\r\n")

    upstream.plays(script)
    assert service.get("/proxy/acme/x").text == "01234", "2.5 s in all, never 1 s of silence"


def test_an_api_that_does_not_read_is_a_timeout(caller, upstream):
    """Its window is full, and the caller's body has no room to go on to."""

    async def script(exchange) -> None:
        await asyncio.sleep(6)

    upstream.plays(script)
    with caller.connect() as connection:
        connection.sendall(caller.head(b"POST /x", b"Content-Length: 100000000"))
        connection.settimeout(8)
        began = time.monotonic()
        sender = threading.Thread(target=send_all_or_fail, args=(connection, 100_000_000))
        sender.start()
        head = connection.recv(1 << 16)
        assert head.startswith(b"HTTP/1.1 504 ")
        assert b"broker-error: upstream-timeout" in head
        assert 1.5 < time.monotonic() - began < 5
    sender.join(5)


def send_all_or_fail(connection: socket.socket, size: int) -> None:
    try:
        for _ in range(size // 1_000_000):
            connection.sendall(bytes(1_000_000))
    except OSError:
        pass


def test_calls_beyond_the_pool_wait_and_then_are_told_so(service, upstream):
    async def script(exchange) -> None:
        await asyncio.sleep(0.4 if b"/quick" in exchange.target else 1.8)
        await exchange.send(OK)

    upstream.plays(script)
    with ThreadPoolExecutor(12) as threads:
        calls = [threads.submit(service.get, "/proxy/acme/quick") for _ in range(2 * CONNECTIONS)]
        assert [call.result().status_code for call in calls] == [200] * (2 * CONNECTIONS)
        assert len({exchange.connection for exchange in upstream.exchanges}) <= CONNECTIONS
        calls = [threads.submit(service.get, "/proxy/acme/slow") for _ in range(2 * CONNECTIONS)]
        answers = [call.result() for call in calls]
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [503] * 3
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert problem(refused) == (503, "unavailable", "unavailable")
    assert "connections to the API" in refused.json()["detail"]
    upstream.answers(OK)
    assert service.get("/proxy/acme/x").status_code == 200, "no place was lost"


def test_a_caller_that_leaves_while_it_waits_for_a_connection_takes_none(caller, service, upstream):
    async def script(exchange) -> None:
        await asyncio.sleep(0.0 if b"/after" in exchange.target else 0.7)
        await exchange.send(OK)

    upstream.plays(script)
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(service.get, "/proxy/acme/slow") for _ in range(CONNECTIONS)]
        time.sleep(0.2)
        for _ in range(5):
            with caller.connect() as connection:
                connection.sendall(caller.head(b"GET /left"))
                time.sleep(0.02)
        assert {call.result().status_code for call in calls} == {200}
    for _ in range(CONNECTIONS):
        assert service.get("/proxy/acme/after").status_code == 200


@pytest.mark.parametrize(
    ("name", "given", "came"),
    [
        ("Location", "/base/v1/x?page=2", "/proxy/acme/v1/x?page=2"),
        ("Location", "{origin}/base/v1/x", "/proxy/acme/v1/x"),
        ("Location", "{origin}/other/x", "{origin}/other/x"),
        ("Location", "https://elsewhere.example/base/x", "https://elsewhere.example/base/x"),
        ("Location", "x?page=2", "x?page=2"),
        (
            "Link",
            '<{origin}/base/v1/x?page=2>; rel="next", </base/v1/x?page=9>; rel="last"',
            '</proxy/acme/v1/x?page=2>; rel="next", </proxy/acme/v1/x?page=9>; rel="last"',
        ),
    ],
)
def test_redirects_are_not_followed_and_links_into_the_api_lead_through_the_proxy(
    service, upstream, name, given, came
):
    origin = f"http://127.0.0.1:{upstream.port}"
    head = f"HTTP/1.1 302 Found\r\n{name}: {given.format(origin=origin)}\r\nContent-Length: 0\r\n"
    upstream.answers(head.encode() + b"\r\n")
    answer = service.get("/proxy/acme/x", follow_redirects=False)
    assert answer.status_code == 302
    assert answer.headers[name] == came.format(origin=origin)
    assert len(upstream.exchanges) == 1
