"""Offers of another protocol, none of which is taken: the request behind the offer is carried out
as if it had not been made (RFC 9110 section 7.8), and its body stays its body."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from tests.conftest import sha256
from tests.service.wire import Answer, receive

JAVA_SOURCE = Path(__file__).parent / "JavaCaller.java"
# What java.net.http.HttpClient sends by default over http.
H2C = (
    b"Connection: Upgrade, HTTP2-Settings",
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    b"Upgrade: h2c",
)
WEBSOCKET_KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
WEBSOCKET = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Key: " + WEBSOCKET_KEY,
    b"Sec-WebSocket-Version: 13",
)
CHUNKED = (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world")
COUNTED = (b"Content-Length: 11", b"hello world", b"hello world")
# A body that would be the next request if it were not read as a body.
LIKE_A_REQUEST = b"POST /v1/smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
SMUGGLING = (b"Content-Length: %d" % len(LIKE_A_REQUEST), LIKE_A_REQUEST, LIKE_A_REQUEST)


@pytest.fixture(scope="module")
def more_settings(upstream):
    return {"IGNITION_API_URL": f"http://127.0.0.1:{upstream.port}"}


@pytest.fixture(autouse=True)
def _no_traceback(broker):
    yield
    assert not broker.tracebacks()


def head(line: bytes, key: str, *headers: bytes) -> bytes:
    lines = [line + b" HTTP/1.1", b"Host: broker", b"Authorization: Bearer " + key.encode()]
    return b"\r\n".join([*lines, *headers, b"", b""])


def in_segments(connection: socket.socket, pieces: list[bytes], broker) -> None:
    """Each is read by itself: an answer of another connection comes between two."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for number, piece in enumerate(pieces):
        if number:
            with socket.create_connection(("127.0.0.1", broker.port), timeout=10) as other:
                other.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                Answer.read(other)
        connection.sendall(piece)


def decoded(exchange) -> bytes:
    raw = exchange.body
    if not exchange.values(b"transfer-encoding"):
        return raw
    whole = b""
    while raw:
        size, _, rest = raw.partition(b"\r\n")
        whole += rest[: int(size, 16)]
        raw = rest[int(size, 16) + 2 :]
    return whole


@pytest.mark.parametrize("offer", [H2C, (b"Connection: upgrade", b"Upgrade: TLS/1.0, foo/2")])
@pytest.mark.parametrize(
    "framing", [CHUNKED, COUNTED, SMUGGLING], ids=["chunked", "counted", "request"]
)
@pytest.mark.parametrize("cut", ["one segment", "two segments", "in the head", "in the body"])
def test_the_body_of_a_request_with_an_upgrade_is_kept(
    broker, caller, upstream, offer, framing, cut
):
    announced, body, content = framing
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    request = caller.head(b"POST /v1/x", *offer, announced, is_kept=True)
    whole = request + body
    at = {
        "one segment": len(whole),
        "two segments": len(request),
        "in the head": len(request) - 20,
        "in the body": len(request) + 7,
    }[cut]
    with caller.connect() as connection:
        in_segments(connection, [whole[:at], whole[at:]] if whole[at:] else [whole], broker)
        assert receive(connection, b"ok").startswith(b"HTTP/1.1 200 ")
        # The connection continues: the first bytes were exactly one request.
        connection.sendall(caller.head(b"GET /v1/next"))
        assert Answer.read(connection).status == 200
    assert [exchange.target for exchange in upstream.exchanges] == [b"/v1/x", b"/v1/next"]
    first = upstream.exchanges[0]
    assert decoded(first) == content
    for name in (b"upgrade", b"http2-settings", b"connection"):
        assert not first.values(name), first.head


@pytest.mark.parametrize("framing", [CHUNKED, COUNTED], ids=["chunked", "counted"])
def test_a_request_pipelined_after_an_upgrade_body_is_the_next_request(caller, upstream, framing):
    announced, body, content = framing
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    one = caller.head(b"POST /v1/one", *H2C, announced, is_kept=True) + body
    two = caller.head(b"PUT /v1/two", *H2C, announced, is_kept=True) + body
    answer = caller.send(one + two + caller.head(b"GET /v1/three", *H2C[1:]))
    assert answer.raw.count(b"HTTP/1.1 200 ") == 3
    assert [exchange.target for exchange in upstream.exchanges] == [
        b"/v1/one",
        b"/v1/two",
        b"/v1/three",
    ]
    assert [decoded(exchange) for exchange in upstream.exchanges] == [content, content, b""]


def test_a_body_that_waits_for_100_continue_comes_when_it_is_asked_for(caller, upstream):
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    with caller.connect() as connection:
        connection.sendall(
            caller.head(b"POST /v1/x", *H2C, b"Content-Length: 5", b"Expect: 100-continue")
        )
        assert receive(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        assert Answer.read(connection).status == 200
    assert upstream.last.body == b"hello"


def call(broker, request: bytes, body: bytes = b"") -> Answer:
    with closing(socket.create_connection(("127.0.0.1", broker.port), timeout=10)) as connection:
        in_segments(connection, [request, body] if body else [request], broker)
        return Answer.read(connection)


def test_an_admins_call_has_its_body(broker):
    body = json.dumps({"name": "java", "scopes": ["token"], "tenants": ["acme"]}).encode()
    for framing, sent in (
        (b"Content-Length: %d" % len(body), body),
        (b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)),
    ):
        request = head(
            b"POST /admin/api-keys",
            broker.admin_key,
            framing,
            b"Content-Type: application/json",
            b"Connection: close, Upgrade, HTTP2-Settings",
            *H2C[1:],
        )
        made = call(broker, request, sent)
        assert made.status == 201, made.raw
        assert json.loads(made.body)["name"] == "java"
        with broker.client() as admin:
            assert admin.delete("/admin/api-keys/java").status_code == 204


def test_a_refresh_with_a_condition_keeps_it(broker, fake, caller):
    """An admin's, which would be allowed an unconditional one."""
    body = json.dumps({"rejected_token_sha256": sha256("another")}).encode()
    request = head(
        b"POST /token/acme/refresh",
        broker.admin_key,
        b"Content-Length: %d" % len(body),
        b"Connection: close, Upgrade, HTTP2-Settings",
        *H2C[1:],
    )
    before = fake.counters()
    assert call(broker, request, body).status == 200
    assert call(broker, request + body).status == 200
    assert fake.counters() == before


@pytest.mark.parametrize("path", [b"/token/acme", b"/forward-auth/acme", b"/healthz", b"/login"])
@pytest.mark.parametrize("offer", [H2C, WEBSOCKET], ids=["h2c", "websocket"])
def test_a_get_with_an_upgrade_is_answered_and_the_connection_kept(broker, caller, path, offer):
    # The admin's key may do all of these.
    request = head(b"GET " + path, broker.admin_key, *offer)
    last = head(b"GET " + path, broker.admin_key, b"Connection: close, Upgrade", *offer[1:])
    answer = call(broker, request + request, last)
    assert answer.raw.count(b"HTTP/1.1 200 OK\r\n") == 3, answer.raw


@pytest.mark.parametrize("path", [b"/proxy/acme/v1/ws", b"/proxy/acme", b"/proxy/acme/x?y=z"])
def test_a_websockets_handshake_is_not_passed_on_and_is_told_so(broker, caller, upstream, path):
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    answer = call(broker, head(b"GET " + path, caller.key, *WEBSOCKET, b"Connection: close"))
    assert answer.status == 400
    assert answer.values(b"content-type") == [b"application/problem+json"]
    assert answer.values(b"broker-error") == [b"invalid-request"]
    assert "WebSocket" in json.loads(answer.body)["detail"]
    assert not upstream.exchanges
    strangers = call(broker, head(b"GET " + path, "ibk_wrong", *WEBSOCKET, b"Connection: close"))
    assert strangers.status == 401
    assert strangers.values(b"content-type") == [b"application/problem+json"]


def test_nothing_of_a_handshake_is_logged(broker, caller):
    call(broker, head(b"GET /proxy/acme/v1/ws", caller.key, *WEBSOCKET, b"Connection: close"))
    log = broker.log_text()
    for told in (WEBSOCKET_KEY.decode(), caller.key, "HTTP2-Settings", "sec-websocket"):
        assert told.lower() not in log.lower()
    assert "WebSocket library" not in log


@pytest.mark.parametrize(
    "target", [b"example.com:443", b"/proxy/acme/x", b"/healthz", b"127.0.0.1:80"]
)
def test_a_tunnel_is_refused_and_what_comes_through_it_is_not_read(
    broker, caller, upstream, target
):
    upstream.exchanges.clear()
    behind = caller.head(b"GET /v1/behind")
    request = head(b"CONNECT " + target, caller.key)
    for answer in (call(broker, request + behind), call(broker, request, behind)):
        assert answer.raw.count(b"HTTP/1.1 ") == 1
        assert answer.status == 400
        assert answer.values(b"content-type") == [b"application/problem+json"]
        assert answer.values(b"connection") == [b"close"]
    assert not upstream.exchanges


def test_http2_with_prior_knowledge_is_refused(broker):
    answer = call(broker, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
    assert answer.status == 400
    assert answer.values(b"content-type") == [b"application/problem+json"]


@pytest.mark.skipif(shutil.which("java") is None, reason="no Java on this machine")
def test_javas_own_client_is_served_with_its_defaults(broker, caller, upstream):
    upstream.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    command = ["java", JAVA_SOURCE, broker.url, caller.key, broker.admin_key]
    told = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines() == [
        "counted 200 ok",
        "chunked 200 ok",
        "waiting 200 ok",
        "keys 201",
        "refresh 200",
        "websocket refused",
    ]
    assert [decoded(exchange) for exchange in upstream.exchanges] == [b"hello world"] * 3
