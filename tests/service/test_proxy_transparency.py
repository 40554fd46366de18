"""What the upstream's socket and the caller's socket see of each other, byte for byte."""

from __future__ import annotations

import gzip

import pytest
from tests.service.wire import receive


@pytest.fixture(scope="module")
def more_settings(upstream):
    return {"IGNITION_API_URL": f"http://127.0.0.1:{upstream.port}/base"}


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"",
        b"/a%2Fb/%c3%A9/%7Euser/~user",
        b"/a//b///c/",
        b"/a;b=c,d/'(x)'!$&*+:@",
        b"/x?a=1&a=2&a=&=b&&c",
        b"/x?q=a+b%20c%2B&u=http://h/p?q&r=[1]|{2}\"'\\^`",
        b"/x?next=../../y&z=/./",
        b"/x?",
        b"/x??",
        b"/x?%zz=%",
    ],
)
def test_path_and_query_arrive_byte_for_byte(caller, upstream, target):
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert caller.call(b"GET " + target).status == 200
    assert upstream.last.target == b"/base" + (target or b"/")


def test_headers_arrive_in_order_with_their_duplicates_and_nothing_is_added(caller, upstream):
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    sent = [b"x-b: 1", b"x-a: 2", b"x-b:3", b"x-empty:", "x-utf8: é".encode(), b'x-q: a, "b,c" ; d']
    caller.call(b"GET /x", *sent, b"X-Request-ID: my-id")
    arrived = upstream.last.lines
    assert arrived[0] == f"Host: 127.0.0.1:{upstream.port}".encode()
    assert arrived[1:-2] == [
        line.replace(b":3", b": 3").replace(b":", b":") for line in sent[:3]
    ] + [
        b"x-empty: ",
        *sent[4:],
    ]
    assert arrived[-2].startswith(b"authorization: Bearer ")
    assert arrived[-1] == b"x-request-id: my-id"


def test_headers_come_back_in_order_with_their_duplicates(caller, upstream):
    upstream.answers(
        b"HTTP/1.1 207 Odd\r\nX-B: 1\r\nX-A: 2\r\nX-B: 3\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n"
        b"Content-Length: 2\r\nServer: theirs\r\nVary: a\r\nVary: b\r\n\r\nok"
    )
    answer = caller.call(b"GET /x")
    assert answer.status == 207
    came = [line for line in answer.lines if not line.startswith((b"x-request-id", b"connection"))]
    assert came == [
        b"x-b: 1",
        b"x-a: 2",
        b"x-b: 3",
        b"date: Mon, 01 Jan 2024 00:00:00 GMT",
        b"content-length: 2",
        b"server: theirs",
        b"vary: a",
        b"vary: b",
    ]


def test_a_header_arrives_as_it_is_in_whatever_encoding(caller, upstream):
    upstream.answers(b"HTTP/1.1 200 OK\r\nX-Latin: \xe9\r\nContent-Length: 0\r\n\r\n")
    answer = caller.call(b"GET /x", b"X-Latin: \xe9", b"X-Utf: \xc3\xa9")
    assert upstream.last.values(b"x-latin") + upstream.last.values(b"x-utf") == [
        b"\xe9",
        b"\xc3\xa9",
    ]
    assert answer.values(b"x-latin") == [b"\xe9"]


@pytest.mark.parametrize("target", [b"/\xc3\xa9", b"/x?q=\xc3\xa9", b"/x?q=\xe9"])
def test_a_target_that_is_no_ascii_is_no_http(caller, upstream, target):
    upstream.plays(upstream.script)
    assert caller.call(b"GET " + target).status == 400
    assert upstream.exchanges == []


def test_an_answer_to_head_keeps_its_length_and_has_no_body(caller, upstream):
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nETag: x\r\n\r\n")
    answer = caller.call(b"HEAD /x")
    assert upstream.last.head.startswith(b"HEAD ")
    assert (answer.values(b"content-length"), answer.body) == ([b"12345"], b"")


@pytest.mark.parametrize("head", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize("length", [b"", b"Content-Length: 12345\r\n"])
def test_an_answer_without_body_ends_and_the_connection_stays_good(
    caller, upstream, head, length, broker
):
    upstream.answers(b"HTTP/1.1 " + head + b"\r\nETag: x\r\n" + length + b"\r\n")
    with caller.connect() as connection:
        for _ in range(2):
            connection.sendall(caller.head(b"GET /x", b"If-None-Match: x", is_kept=True))
            raw = receive(connection, b"\r\n\r\n")
            assert raw.startswith(b"HTTP/1.1 " + head[:3])
            assert raw.endswith(b"\r\n\r\n")
            assert b"etag: x\r\n" in raw
            assert b"chunked" not in raw
    assert "Exception in ASGI" not in broker.log_text()


def test_a_part_comes_back_as_a_part(caller, upstream):
    upstream.answers(
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/10\r\n"
        b"Content-Length: 3\r\n\r\nabc"
    )
    answer = caller.call(b"GET /x", b"Range: bytes=2-4", b"If-Range: x")
    assert upstream.last.values(b"range") == [b"bytes=2-4"]
    assert upstream.last.values(b"if-range") == [b"x"]
    assert (answer.status, answer.values(b"content-range")) == (206, [b"bytes 2-4/10"])
    assert answer.body == b"abc"


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"zstd", b"gzip, x-own"])
def test_an_encoded_body_is_not_decoded(caller, upstream, encoding):
    packed = gzip.compress(b"text " * 1000)
    upstream.answers(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n%b"
        % (encoding, len(packed), packed)
    )
    answer = caller.call(b"GET /x", b"Accept-Encoding: " + encoding)
    assert upstream.last.values(b"accept-encoding") == [encoding]
    assert answer.values(b"content-encoding") == [encoding]
    assert answer.values(b"content-length") == [b"%d" % len(packed)]
    assert answer.body == packed


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"GET", b"DELETE", b"PROPFIND"])
def test_a_sized_body_arrives_with_its_length(caller, upstream, method):
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    caller.call(
        method + b" /x", b"Content-Length: 5", b"Content-Type: odd/type", body=b"\x00\r\n\xffa"
    )
    assert upstream.last.head.startswith(method + b" /base/x HTTP/1.1\r\n")
    assert upstream.last.values(b"content-length") == [b"5"]
    assert upstream.last.values(b"content-type") == [b"odd/type"]
    assert upstream.last.values(b"transfer-encoding") == []
    assert upstream.last.body == b"\x00\r\n\xffa"


def test_an_empty_body_arrives_as_an_empty_body(caller, upstream):
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    answer = caller.call(b"POST /x", b"Content-Length: 0")
    assert upstream.last.values(b"content-length") == [b"0"]
    assert upstream.last.values(b"content-type") == []
    assert (answer.values(b"content-length"), answer.body) == ([b"0"], b"")


def test_a_chunked_body_arrives_chunked(caller, upstream):
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    caller.call(
        b"POST /x", b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n3;ext=1\r\n!!!\r\n0\r\n\r\n"
    )
    assert upstream.last.values(b"transfer-encoding") == [b"chunked"]
    assert upstream.last.values(b"content-length") == []
    assert upstream.last.body in (
        b"8\r\nhello!!!\r\n0\r\n\r\n",
        b"5\r\nhello\r\n3\r\n!!!\r\n0\r\n\r\n",
    )


def test_a_chunked_answer_comes_back_chunked(caller, upstream):
    upstream.answers(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    )
    answer = caller.call(b"GET /x")
    assert answer.values(b"transfer-encoding") == [b"chunked"]
    assert answer.values(b"content-length") == []
    assert answer.body == b"5\r\nhello\r\n0\r\n\r\n"


def test_an_answer_that_ends_with_its_connection_comes_back_whole(caller, upstream):
    async def script(exchange):
        await exchange.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello")
        raise ConnectionError

    upstream.plays(script)
    assert caller.call(b"GET /x").body == b"5\r\nhello\r\n0\r\n\r\n"


def test_trailers_are_dropped_both_ways(caller, upstream):
    upstream.answers(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
    )
    answer = caller.call(
        b"POST /x",
        b"Transfer-Encoding: chunked",
        b"Trailer: X-Sum",
        body=b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-Undeclared: 2\r\nX-B: 3\r\n\r\n",
    )
    assert answer.body == b"5\r\nhello\r\n0\r\n\r\n"
    assert answer.values(b"trailer") == []
    assert upstream.last.body == b"2\r\nhi\r\n0\r\n\r\n"
    for name in (b"x-sum", b"x-undeclared", b"trailer", b"x-b"):
        assert upstream.last.values(name) == [], name


def test_a_caller_that_expects_100_is_told_to_go_on(caller, upstream):
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    with caller.connect() as connection:
        connection.sendall(caller.head(b"POST /x", b"Content-Length: 5", b"Expect: 100-continue"))
        assert connection.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        assert receive(connection, b"ok").startswith(b"HTTP/1.1 200 ")
    assert upstream.last.body == b"hello"
    assert upstream.last.values(b"expect") == []


def test_a_refused_caller_that_expects_100_is_not_told_to_go_on(caller, upstream):
    upstream.plays(upstream.script)
    answer = caller.call(b"POST /../x", b"Content-Length: 5", b"Expect: 100-continue")
    assert answer.status == 400
    assert upstream.exchanges == []


def test_connections_are_kept_on_both_sides(caller, upstream):
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    with caller.connect() as connection:
        for _ in range(3):
            connection.sendall(caller.head(b"GET /x", is_kept=True))
            assert receive(connection, b"\r\n\r\nok").endswith(b"\r\n\r\nok")
    assert len({exchange.connection for exchange in upstream.exchanges}) == 1


def test_cookies_never_stay_behind_in_the_proxy(caller, upstream):
    upstream.answers(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: session=1; Path=/\r\nContent-Length: 2\r\n\r\nok"
    )
    assert caller.call(b"GET /x").values(b"set-cookie") == []
    caller.call(b"GET /x")
    assert upstream.last.values(b"cookie") == []
