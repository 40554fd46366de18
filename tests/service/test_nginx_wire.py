"""What the API's socket and the caller's see of each other through nginx: as through the broker's
own proxy, as far as nginx can."""

from __future__ import annotations

import asyncio
import re
import time

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import wait_until
from tests.service.nginx import Nginx
from tests.service.test_proxy_streams import (  # noqa: F401
    falls_silent_amid_its_answer,
    streams_without_end,
    test_an_answer_that_breaks_off_amid_its_chunks_is_not_complete,
    test_an_answer_that_breaks_off_short_of_its_length_is_not_complete,
    test_an_event_is_out_within_50_ms_of_coming_in,
    waits_for_the_end,
)
from tests.service.test_proxy_transparency import (  # noqa: F401
    more_settings,
    test_a_caller_that_expects_100_is_told_to_go_on,
    test_a_chunked_answer_comes_back_chunked,
    test_a_part_comes_back_as_a_part,
    test_a_sized_body_arrives_with_its_length,
    test_an_answer_that_ends_with_its_connection_comes_back_whole,
    test_an_answer_to_head_keeps_its_length_and_has_no_body,
    test_an_empty_body_arrives_as_an_empty_body,
    test_an_encoded_body_is_not_decoded,
    test_connections_are_kept_on_both_sides,
    test_cookies_never_stay_behind_in_the_proxy,
    test_path_and_query_arrive_byte_for_byte,
)
from tests.service.wire import RawCaller, RawUpstream, receive

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def nginx(broker, tmp_path_factory):
    server = Nginx(
        tmp_path_factory.mktemp("nginx"), broker.port, broker.settings["IGNITION_API_URL"]
    )
    yield server.start()
    server.stop()


@pytest.fixture(scope="module")
def caller(broker, nginx):
    broker.connect("acme")
    return RawCaller(nginx.port, broker.make_key("nginx", ["proxy"], ["acme"]))


PIECES = (
    rb"/ // . .. ... ; ;x= \ @ : # % %2e %2E %2f %2F %5c %5C %3b %25 %252e %2541 %00 %0a %7f "
    rb"%c3%a9 %41 %7E a b.c ~ + & = , ' ( ) * ! $"
).split()
ENCODES_NOTHING = re.compile(rb"%(?![0-9a-fA-F]{2})")


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    pieces=st.lists(st.sampled_from(PIECES), max_size=8), query=st.sampled_from([b"", b"?x=%2e"])
)
def test_a_path_goes_out_as_from_the_brokers_own_proxy_or_not_at_all(
    caller, upstream, broker, pieces, query
):
    path = b"/" + b"".join(pieces)

    def outcome(port):
        upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        answer = RawCaller(port, caller.key).call(b"GET " + path + query)
        return answer.status, [exchange.target for exchange in upstream.exchanges]

    # nginx itself refuses invalid percent-encodings and NUL.
    read = path.partition(b"#")[0]
    is_refused = ENCODES_NOTHING.search(read) or b"%00" in read
    assert outcome(caller.port) == ((400, []) if is_refused else outcome(broker.port))


@pytest.mark.parametrize(
    ("script", "line", "headers", "body"),
    [
        (waits_for_the_end, b"GET /x", [], b""),
        (waits_for_the_end, b"POST /x", [b"Content-Length: 5"], b"whole"),
        (streams_without_end, b"GET /x", [], b""),
        (falls_silent_amid_its_answer, b"GET /x", [], b""),
    ],
    ids=["ahead of the answer", "after the body", "while it streams", "while it is silent"],
)
def test_a_caller_that_goes_away_ends_the_request_to_the_api_within_a_second(
    caller, upstream, script, line, headers, body
):
    upstream.plays(script)
    with caller.connect() as connection:
        connection.sendall(caller.head(line, *headers) + body)
        wait_until(lambda: upstream.exchanges, 2, "the request's arrival")
        if script is not waits_for_the_end:
            receive(connection, b"hello\r\n")
    left_at = time.monotonic()
    wait_until(lambda: upstream.last.gone_at, 2, "the end of the request to the API")
    assert upstream.last.gone_at - left_at < 1


def test_nothing_of_the_callers_connection_goes_out(caller, upstream):
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    caller.call(
        b"POST /x",
        b"Cookie: a=b",
        b"Expect: 100-continue",
        b"Forwarded: for=1.2.3.4",
        b"Proxy-Authorization: Basic eDp5",
        b"TE: trailers",
        b"Trailer: x",
        b"Upgrade: h2c",
        b"X-Forwarded-For: 1.2.3.4",
        b"X-Forwarded-Host: evil",
        b"X-Forwarded-Proto: https",
        b"X-Real-IP: 1.2.3.4",
        b"X-Mine: 1",
        b"x_under: 2",
        b"Content-Length: 0",
    )
    names = {line.split(b":")[0].lower() for line in upstream.last.lines}
    assert names == {
        *(b"authorization", b"content-length", b"host", b"x-request-id"),
        *(b"x-mine", b"x_under"),
    }


def test_what_a_connection_header_names_does_not_go_out(caller, upstream):
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert caller.call(b"GET /x", b"Connection: close, X-Hop", b"X-Hop: 1", b"X-Y: 2").status == 200
    assert upstream.last.values(b"x-hop") == []
    assert upstream.last.values(b"x-y") == [b"2"]


def test_headers_come_back_with_their_duplicates(caller, upstream):
    upstream.answers(
        b"HTTP/1.1 207 Odd\r\nX-B: 1\r\nX-A: 2\r\nX-B: 3\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n"
        b"Content-Length: 2\r\nServer: theirs\r\nVary: a\r\nVary: b\r\nETag: W/x\r\n"
        b"Cache-Control: max-age=1\r\nExpires: 0\r\nBroker-Error: theirs\r\nX-Request-ID: 1\r\n\r\n"
        b"ok"
    )
    answer = caller.call(b"GET /x")
    assert answer.status == 207
    kept = [line for line in answer.lines if not line.startswith((b"X-Request-ID", b"Connection"))]
    assert sorted(kept) == sorted(
        [
            *(b"X-B: 1", b"X-A: 2", b"X-B: 3", b"Content-Length: 2", b"Server: theirs"),
            *(b"Date: Mon, 01 Jan 2024 00:00:00 GMT", b"Vary: a", b"Vary: b", b"ETag: W/x"),
            *(b"Cache-Control: max-age=1", b"Expires: 0"),
        ]
    )
    assert len(answer.values(b"x-request-id")) == 1


@pytest.mark.parametrize(
    ("sent", "came"),
    [
        ("{api}/base/v1/x?y", "/proxy/acme/v1/x?y"),
        ("/base/v1/x", "/proxy/acme/v1/x"),
        ("/elsewhere", "/elsewhere"),
        ("//evil.example/base/x", "//evil.example/base/x"),
        ("https://evil.example/base/x", "https://evil.example/base/x"),
        ("{api}/base.evil/x", "{api}/base.evil/x"),
    ],
)
def test_a_location_in_the_apis_base_leads_through_the_proxy(caller, upstream, sent, came):
    api = f"http://127.0.0.1:{upstream.port}"
    location = sent.format(api=api)
    upstream.answers(
        f"HTTP/1.1 201 Made\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    )
    assert caller.call(b"POST /x").values(b"location") == [came.format(api=api).encode()]


@pytest.mark.parametrize(
    ("sent", "came"),
    [
        ("", None),
        ('<{api}/base/a?page=2>; rel="next"', '</proxy/acme/a?page=2>; rel="next"'),
        (
            '</base/a>; rel="first", <{api}/base/b>; rel="prev", <{api}/base/c>; rel="next",'
            ' </base/d>; rel="last"',
            '</proxy/acme/a>; rel="first", </proxy/acme/b>; rel="prev",'
            ' </proxy/acme/c>; rel="next", </proxy/acme/d>; rel="last"',
        ),
        ("<https://docs.example/x>; rel=help", "<https://docs.example/x>; rel=help"),
        ("<https://docs.example/x>; rel=help, <{api}/base/a>; rel=next", None),
        ("<{api}/base/a>,<{api}/base/b>,<{api}/base/c>,<{api}/base/d>,<{api}/base/e>", None),
    ],
)
def test_links_in_the_apis_base_lead_through_the_proxy(caller, upstream, sent, came):
    api = f"http://127.0.0.1:{upstream.port}"
    line = f"Link: {sent.format(api=api)}\r\n" if sent else ""
    upstream.answers(f"HTTP/1.1 200 OK\r\n{line}Content-Length: 0\r\n\r\n".encode())
    assert caller.call(b"GET /x").values(b"link") == ([came.encode()] if came else [])


def test_a_chunked_body_arrives_whole(caller, upstream):
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    body = b"5\r\nhello\r\n3;ext=1\r\n!!!\r\n0\r\n\r\n"
    assert caller.call(b"POST /x", b"Transfer-Encoding: chunked", body=body).status == 200
    assert upstream.last.body == b"hello!!!"


def test_many_calls_share_few_connections_to_the_api(caller, upstream):
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    before = upstream.connections
    for _ in range(50):
        assert caller.call(b"GET /x").status == 200
    # One per worker process.
    assert upstream.connections - before <= psutil.cpu_count()


def test_the_broker_is_shown_the_key_alone_over_a_kept_connection(upstream, tmp_path):
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    broker = RawUpstream().start()
    broker.answers(
        b"HTTP/1.1 200 OK\r\nAuthorization: Bearer theirs\r\nBroker-Token-SHA256: 0\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    server = Nginx(tmp_path, broker.port, f"http://127.0.0.1:{upstream.port}").start()
    try:
        for _ in range(50):
            caller = RawCaller(server.port, "ibk_mine")
            assert caller.call(b"POST /x", b"X-A: 1", b"Content-Length: 1", body=b"x").status == 200
    finally:
        server.stop()
        broker.stop()
    assert broker.last.target == b"/forward-auth/acme"
    names = {line.partition(b": ")[0].lower() for line in broker.last.lines}
    assert names == {b"host", b"authorization", b"x-request-id", b"x-forwarded-for"}
    assert broker.last.values(b"x-forwarded-for") == [b"127.0.0.1"]
    assert broker.last.values(b"authorization") == [b"Bearer ibk_mine"]
    assert upstream.last.values(b"authorization") == [b"Bearer theirs"]
    assert broker.connections <= psutil.cpu_count()


def test_the_first_byte_of_a_large_answer_does_not_wait_for_the_last(caller, upstream):
    finished_at = []

    async def script(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (100 * MEGABYTE))
        await exchange.send(b"first")
        await asyncio.sleep(0.2)
        await exchange.send(bytes(100 * MEGABYTE - 5))
        finished_at.append(time.monotonic())

    upstream.plays(script)
    with caller.connect() as connection:
        connection.sendall(caller.head(b"GET /x"))
        received = connection.recv(1 << 16)
        while b"\r\n\r\nfirst" not in received:
            received += connection.recv(1 << 16)
        assert finished_at == []
        began_at, size = time.monotonic(), len(received)
        while piece := connection.recv(1 << 20):
            size += len(piece)
    print(f"100 MB took {time.monotonic() - began_at:.2f} s")
    assert size - received.index(b"first") == 100 * MEGABYTE


def test_100_mb_go_up_and_down_with_flat_memory(caller, upstream, nginx):
    size = 100 * MEGABYTE

    async def script(exchange):
        await exchange.read_body(is_kept=False)
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(100):
            await exchange.send(bytes(MEGABYTE))

    def resident():
        workers = psutil.Process(nginx.process.pid).children()
        return sum(worker.memory_info().rss for worker in workers)

    upstream.plays(script)
    before = peak = resident()
    with caller.connect() as connection:
        connection.sendall(caller.head(b"POST /x", b"Content-Length: %d" % size))
        for _ in range(100):
            connection.sendall(bytes(MEGABYTE))
        received = 0
        while piece := connection.recv(1 << 20):
            received += len(piece)
            peak = max(peak, resident())
    assert upstream.last.body_bytes == size
    assert size < received < size + 1000
    print(f"grew by {(peak - before) / MEGABYTE:.1f} MB")
    assert peak - before < 20 * MEGABYTE
