"""The fixed origin and base path can't be left. The oracle is what the upstream's socket saw.

``FUZZ_CASES=100000`` makes the fuzz long.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BASE = b"/api/v2"
FUZZ_CASES = int(os.environ.get("FUZZ_CASES", "400"))


@pytest.fixture(scope="module")
def more_settings(upstream):
    return {"IGNITION_API_URL": f"http://127.0.0.1:{upstream.port}{BASE.decode()}"}


@pytest.fixture(scope="module")
def access_token(broker, caller):
    with broker.client() as admin:
        return admin.get("/token/acme").json()["access_token"].encode()


LEFT_OUT = {
    *(b"cookie", b"proxy-authorization", b"forwarded", b"x-forwarded", b"x-forwarded-for"),
    *(b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port", b"x-forwarded-prefix"),
    *(b"x-real-ip", b"x-client-ip", b"client-ip", b"true-client-ip", b"cf-connecting-ip"),
    *(b"x-original-url", b"x-original-uri", b"x-rewrite-url", b"x-original-host", b"x-host"),
}


def judge(upstream, caller, access_token) -> None:
    """What went out, if anything did, is one request to where it belongs, with the tenant's token
    and without the caller's key."""
    assert len(upstream.exchanges) <= 1, [exchange.head for exchange in upstream.exchanges]
    for exchange in upstream.exchanges:
        target = exchange.target
        path = target.partition(b"?")[0]
        assert path.startswith(BASE + b"/") or path == BASE, target
        decoded = path
        for _ in range(5):
            decoded = unquote_to_bytes(decoded)
            # As a server reads them that decodes once more: cut off, and trimmed.
            segments = [re.split(rb"[;?#:\s\0]", part.lstrip())[0] for part in decoded.split(b"/")]
            assert b".." not in segments, target
            assert b"." not in segments, target
            assert b"\\" not in decoded, target
        assert exchange.values(b"host") == [f"127.0.0.1:{upstream.port}".encode()]
        assert exchange.values(b"authorization") == [b"Bearer " + access_token]
        assert caller.key.encode() not in exchange.head
        # CGI and WSGI servers read '_' and '-' as the same.
        names = {line.partition(b":")[0].lower().replace(b"_", b"-") for line in exchange.lines}
        assert not names & LEFT_OUT, exchange.head
        assert not [name for name in names if name.startswith((b"broker-", b"x-envoy-"))]
        framings = [
            line
            for line in exchange.lines
            if line.lower().replace(b"_", b"-").startswith((b"content-length:", b"transfer-enc"))
        ]
        assert len(framings) <= 1


PATHS = [
    b"/..",
    b"/../",
    b"/../secret",
    b"/./x",
    b"/.",
    b"/a/../../x",
    b"/a/..",
    b"/%2e%2e/x",
    b"/%2E%2e/x",
    b"/.%2e/x",
    b"/%2e./x",
    b"/%252e%252e/x",
    b"/%25252e%25252e/x",
    b"/%2525252525252e%2525252525252e/x",
    b"/a%2f..%2fx",
    b"/..%2fx",
    b"/..;/x",
    b"/..;a=b/x",
    b"/a/..;x/b",
    b"/%2e%2e;/x",
    b"//evil.example/x",
    b"///evil.example",
    b"/\\evil.example",
    b"/\\..\\x",
    b"\\x",
    b"/a\\..\\..\\x",
    b"/%5c..%5cx",
    b"/%255c..%255cx",
    b"@evil.example/x",
    b":80@evil.example/x",
    b".evil.example/x",
    b":1/x",
    b"/x%00",
    b"/x%0d%0aX-Evil:%201",
    b"/x%0aX-Evil:1",
    b"/x%09y",
    b"/x%7f",
    b"/x#y",
    b"/x?a#b",
    b"/http://evil.example/x",
    b"/x?u=http://evil.example/../..",
    b"/x?y=..%2f..",
    b"/%c0%ae%c0%ae/x",
    b"/%u002e%u002e/x",
    b"/..%3f/x",
    b"/a/..%3F",
    b"/%2e%2e%3f",
    b"/..%23/x",
    b"/..%253f/x",
    b"/..%2523",
    b"/..%20/x",
    b"/%20../x",
    b"/..%2520/x",
    b"/..%09/x",
    b"/..%00/x",
    b"/..%2500",
    b"/..%a0/x",
    b"/..%c2%a0/x",
    b"/..%c0%af/x",
    b"/..%e0%80%af/x",
    b"/..%c1%9cx",
    b"/..:/x",
    b"/..%3a$DATA/x",
    b"/..,/x",
    b"/..+/x",
    b"/..%26/x",
    b"/..%e2%88%95/x",
    b"/%ef%bc%8e%ef%bc%8e/x",
    b"/..%u2215x",
    b"/.%3f/x",
    b"/a/..%3bx/b",
    b"/a%2f..%3f",
    b"/a/.%2e%3f",
    b"/x\t/y",
    b"/x\x0b/y",
    b"/\xff/x",
]


@pytest.mark.parametrize("path", PATHS, ids=repr)
def test_no_path_leaves_the_base(caller, upstream, access_token, path):
    upstream.exchanges.clear()
    answer = caller.call(b"GET " + path)
    judge(upstream, caller, access_token)
    assert answer.status in ({200} if upstream.exchanges else {400, 403, 404, 422})


TARGETS = [
    b"http://evil.example/proxy/acme/x",
    b"//evil.example/proxy/acme/x",
    b"/proxy/acme/../../token/acme",
    b"/proxy/../proxy/acme/x",
    b"/PROXY/acme/x",
    b"/proxy/acme%2f..%2f..%2fx",
    b"/proxy/acme%00/x",
    b"/proxy//acme/x",
    b"/proxy/ACME/x",
    b"/proxy/",
    b"*",
]


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_no_target_is_more_than_a_tenant_and_a_path(caller, upstream, access_token, target):
    upstream.exchanges.clear()
    head = b"GET " + target + b" HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n"
    answer = caller.send(head + b"Authorization: Bearer " + caller.key.encode() + b"\r\n\r\n")
    judge(upstream, caller, access_token)
    assert upstream.exchanges or answer.status in {303, 400, 403, 404, 422}


HEADERS = [
    [b"Host: evil.example"],
    [b"X-Original-URL: /evil", b"X-Rewrite-URL: /evil", b"X-Original-URI: /evil"],
    [b"X_Original_URL: /evil", b"X_Rewrite_URL: /evil", b"X-Original_URL: /evil"],
    [b"x_forwarded_for: 6.6.6.6", b"X_FORWARDED_HOST: evil", b"X-Forwarded_Proto: x"],
    [b"X_Real_IP: 6.6.6.6", b"X-Client-IP: 6.6.6.6", b"True_Client_IP: 6.6.6.6", b"X-HOST: e"],
    [b"Broker_Error: mine", b"BROKER-ERROR: mine", b"X-Envoy-Original-Path: /evil"],
    [b"Content_Length: 7", b"Content-Length: 5"],
    [b"Transfer_Encoding: chunked", b"Content-Length: 5"],
    [b"Proxy_Authorization: Basic eDp5", b"X_Forwarded: 1", b"Client-IP: 1", b"X_Host: e"],
    [b"Host: evil.example", b"Host: broker"],
    [b"X-Forwarded-Host: evil.example", b"X-Forwarded-For: 10.0.0.1", b"Forwarded: for=1"],
    [b"Connection: authorization, host, x-y", b"X-Y: 1"],
    [b"Connection: close, content-length"],
    [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
    [b"Content-Length: 5", b"Content-Length: 6"],
    [b"Content-Length: +5"],
    [b"Content-Length: 0x5"],
    [b"Transfer-Encoding: chunked, identity"],
    [b"Transfer-Encoding: xchunked"],
    [b"Transfer-Encoding : chunked"],
    [b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"],
    [b"TE: trailers, chunked"],
    [b"Cookie: a=b"],
    [b"Proxy-Authorization: Basic eDp5"],
    [b"Authorization: Bearer other"],
    [b"X-Evil: a\rX-Other: b"],
    [b"X-Evil: a\nX-Other: b"],
    [b"X-Evil: a\x00b"],
    [b"X Evil: a"],
    [b"X-Long: " + b"a" * 70_000],
    [b"Upgrade: websocket", b"Connection: upgrade"],
    [b"Upgrade: h2c", b"Connection: upgrade, http2-settings", b"HTTP2-Settings: AAMAAABk"],
    [b"Expect: 200-ok"],
]

SMUGGLED = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n"


@pytest.mark.parametrize("headers", HEADERS, ids=lambda headers: repr(headers)[:60])
@pytest.mark.parametrize("body", [b"", b"hello", SMUGGLED], ids=["none", "five", "smuggled"])
def test_no_header_redirects_or_smuggles(caller, upstream, access_token, headers, body):
    upstream.exchanges.clear()
    with caller.connect() as connection:
        connection.sendall(caller.head(b"POST /x", *headers) + body)
        connection.settimeout(1)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            connection.recv(1 << 16)
    judge(upstream, caller, access_token)


ODD_PIECES = (
    b".. . / // %2e %2E %252e %2f %5c \\ ; ? @ # : % %00 %0d%0a a x=1 & + evil.example http://"
).split()
piece = st.sampled_from(ODD_PIECES) | st.binary(min_size=1, max_size=3).filter(
    lambda raw: not set(raw) & set(b" \r\n")
)
header = st.sampled_from([line for lines in HEADERS for line in lines if len(line) < 1000])


numbers = itertools.count()


@settings(
    max_examples=FUZZ_CASES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(path=st.lists(piece, max_size=12).map(b"".join), headers=st.lists(header, max_size=2))
def test_the_fuzz_finds_no_way_out(caller, upstream, access_token, path, headers):
    upstream.exchanges.clear()
    request_id = b"fuzz-%d" % next(numbers)
    with caller.connect() as connection:
        connection.sendall(caller.head(b"GET /" + path, *headers, b"X-Request-ID: " + request_id))
        # If a body was announced, neither a body nor an answer comes.
        connection.settimeout(0.05)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            connection.recv(1 << 16)
    # Requests of an earlier case may arrive late.
    late = [e for e in upstream.exchanges if e.values(b"x-request-id") != [request_id]]
    for exchange in late:
        assert exchange.values(b"x-request-id")[0].startswith(b"fuzz-"), exchange.head
        upstream.exchanges.remove(exchange)
    judge(upstream, caller, access_token)


METHODS = [b"TRACE", b"CONNECT", b"TRACK", b"trace", b"PROPFIND", b"GET\t", b"OPTIONS"]


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_no_method_has_the_api_send_its_token_back(caller, upstream, access_token, method):
    upstream.exchanges.clear()
    with caller.connect() as connection:
        connection.sendall(caller.head(method + b" /x"))
        connection.settimeout(2)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            assert access_token not in connection.recv(1 << 16)
    sent = {exchange.head.split(b" ")[0].strip().upper() for exchange in upstream.exchanges}
    assert not sent & {b"TRACE", b"TRACK", b"CONNECT"}
    judge(upstream, caller, access_token)
