from __future__ import annotations

import itertools
import re
import time
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ignition_broker.proxy.headers import (
    ApiLinks,
    blames_token,
    request_headers,
    response_headers,
)
from ignition_broker.proxy.paths import PathRefused, upstream_target


@pytest.mark.parametrize(
    ("path", "query", "target"),
    [
        (b"", b"", b"/base/"),
        (b"/v1/me", b"", b"/base/v1/me"),
        (b"/a%2Fb/%C3%A9", b"x=1&x=&y=a+b%20c", b"/base/a%2Fb/%C3%A9?x=1&x=&y=a+b%20c"),
        (b"/a//b/", b"?", b"/base/a//b/??"),
        (b"/user@host:80/x", b"q='\"", b"/base/user@host:80/x?q='\""),
        (b"/.../..a/a..", b"../..", b"/base/.../..a/a..?../.."),
        (b"/.well-known/..-x/..~/.%C3%A9/a;x", b"", b"/base/.well-known/..-x/..~/.%C3%A9/a;x"),
        (b"/a%3Fb/a%23b/a%20b/a%252Fb", b"", b"/base/a%3Fb/a%23b/a%20b/a%252Fb"),
        (b"/%E2%80%A6/%EF%BC%A1%EF%BC%8F", b"", b"/base/%E2%80%A6/%EF%BC%A1%EF%BC%8F"),
        (b"/v1.2/x.tar.gz/a%20.b/50%25", b"", b"/base/v1.2/x.tar.gz/a%20.b/50%25"),
    ],
)
def test_what_stays_inside_goes_out_byte_for_byte(path, query, target):
    assert upstream_target(b"/base", path, query) == target


@pytest.mark.parametrize(
    "path",
    [
        b"/..",
        b"/../x",
        b"/x/../../y",
        b"/./x",
        b"/%2e%2e/x",
        b"/%2E./x",
        b"/.%2e/x",
        b"/%252e%252e/x",
        b"/%25252e%25252e/x",
        b"/..%2fx",
        b"/x%2f..%2f..%2fy",
        b"/..;a=b/x",
        b"/%2e%2e;a/x",
        b"/..\\x",
        b"/x\\..\\y",
        b"/%5c..%5cx",
        b"/%255c",
        b"//evil.example/x",
        b"http://evil.example/",
        b"@evil.example/",
        b":80/",
        b"/a b",
        b"/a\tb",
        b"/a\r\nX: y",
        b"/a%0d%0aX:%20y",
        b"/a%00",
        b"/a%2500",
        b"/a#b",
        b"/a?b",
        b"/" + b"%25" * 1 + b"252525252e",
        b"/%c0%ae%c0%ae/x",
        b"/%e0%80%ae%e0%80%ae/x",
        b"/%f0%80%80%ae./x",
        b"/%u002e%u002e/x",
        b"/.%u002E",
        b"/%ef%bc%8e%ef%bc%8e/x",
        b"/%e2%80%a5/x",
        b"/%e2%80%a4%e2%80%a4/x",
        b"/%ef%bc%852e%ef%bc%852e/x",
        b"/a%ef%bc%bc..",
        b"/a%e2%88%96b",
        b"/%2%65%2%65/x",
        b"/%%32%65%%32%65/x",
    ],
)
def test_what_could_leave_the_base_is_refused(path):
    with pytest.raises(PathRefused):
        upstream_target(b"/base", path, b"")


AHEAD = b"/a/ /a%2f /a/%20 /a/%c2%a0 /a/%e3%80%80 /a/%2520".split()
DOTS = b".. %2e%2e .%2e %252e. .".split()
BEHIND = [
    *b"%3f %23 %253f %2523 ; %3b %20 %2520 %09 %00 %0a %0d %a0 %c2%a0 %c2%85 %ff %c0%af".split(),
    *b"%c0%80 : %3a$DATA , ! ' %22 | + * &x = %26 %e2%88%95 %ef%bc%8f %u002f %u2215 %5c".split(),
    *(b"%c1%9c", b"", b"@", b"%zz", b"%"),
]


def test_nothing_behind_the_dots_hides_them():
    for ahead, dots, behind, rest in itertools.product(AHEAD, DOTS, BEHIND, (b"", b"/x")):
        path = ahead + dots + behind + rest
        try:
            target = upstream_target(b"/base", path, b"")
        except PathRefused:
            continue
        pytest.fail(f"goes out as {target!r}")


@given(st.binary(max_size=60))
def test_no_path_that_is_let_through_climbs_at_any_depth_of_decoding(path):
    try:
        target = upstream_target(b"/base", b"/" + path, b"")
    except PathRefused:
        return
    assert target == b"/base/" + path
    for _ in range(6):
        assert b"\\" not in target
        # Cut where some server stops reading, and trimmed.
        segments = {re.split(rb"[;?#:\s\0]", part.lstrip())[0] for part in target.split(b"/")}
        assert not {b".", b".."} & segments
        target = unquote_to_bytes(target)


def test_headers_go_out_in_order_without_the_callers_own():
    received = [
        (b"host", b"broker"),
        (b"authorization", b"Bearer ibk_x"),
        (b"x-a", b"1"),
        (b"cookie", b"c"),
        (b"x-a", b"2"),
        (b"connection", b"authorization, X-Gone"),
        (b"x-gone", b"1"),
        (b"x-forwarded-for", b"1.2.3.4"),
        (b"forwarded", b"for=x"),
        (b"te", b"trailers"),
        (b"broker-retry", b"3"),
        (b"content-length", b"5"),
    ]
    assert request_headers(received, "token", "id") == [
        (b"x-a", b"1"),
        (b"x-a", b"2"),
        (b"content-length", b"5"),
        (b"authorization", b"Bearer token"),
        (b"x-request-id", b"id"),
    ]


LEFT_OUT = [
    "connection",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "cookie",
    "expect",
    "forwarded",
    "x-forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-whatever",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-original-method",
    "x-host",
    "x-real-ip",
    "x-client-ip",
    "client-ip",
    "true-client-ip",
    "x-cluster-client-ip",
    "cf-connecting-ip",
    "x-envoy-original-path",
    "x-envoy-external-address",
    "broker-error",
    "broker-retry",
    "x-request-id",
]


def spellings(name: str) -> set[str]:
    """With '_' in place of each '-', some of them, or all."""
    choices = [(part, "-_") for part in name.split("-")]
    made = {""}
    for number, (part, joints) in enumerate(choices):
        ends = joints if number < len(choices) - 1 else [""]
        made = {before + part + end for before in made for end in ends}
    return made


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_header_that_is_left_out_is_so_in_every_spelling(name):
    assert name in spellings(name)
    for spelling in spellings(name) - {"connection"}:
        sent = request_headers([(spelling.encode(), b"1"), (b"x_mine", b"2")], "token", "id")
        assert [pair for pair in sent if pair[0] != b"x-request-id" or pair[1] != b"id"] == [
            (b"x_mine", b"2"),
            (b"authorization", b"Bearer token"),
        ]


def test_a_second_framing_by_underscores_does_not_go_out():
    received = [(b"content_length", b"7"), (b"content-length", b"5"), (b"transfer_encoding", b"x")]
    sent = request_headers(received, "token", "id")
    assert sent[0] == (b"content-length", b"5")
    assert len(sent) == 3


@pytest.mark.parametrize("name", ["broker-error", "set-cookie", "set-cookie2", "x-request-id"])
def test_a_mark_of_the_brokers_own_does_not_come_back_in_any_spelling(name):
    links = ApiLinks("https://api.example")
    for spelling in spellings(name):
        came = response_headers([(spelling.encode(), b"1"), (b"x_y", b"2")], links, b"/proxy/acme")
        assert came == [(b"x_y", b"2")]


@pytest.mark.parametrize(
    ("location", "rewritten"),
    [
        (b"https://api.example/base/x?y", b"/proxy/acme/x?y"),
        (b"HTTPS://API.example/base/x", b"/proxy/acme/x"),
        (b"/base/x", b"/proxy/acme/x"),
        (b"/base", b"/proxy/acme"),
        (b"/basement", b"/basement"),
        (b"/other", b"/other"),
        (b"https://api.example.evil/base/x", b"https://api.example.evil/base/x"),
        (b"https://elsewhere.example/base/x", b"https://elsewhere.example/base/x"),
        (b"//elsewhere.example/base/x", b"//elsewhere.example/base/x"),
        (b"next", b"next"),
    ],
)
def test_links_into_the_api_lead_through_the_proxy(location, rewritten):
    links = ApiLinks("https://api.example/base")
    came = response_headers([(b"location", location)], links, b"/proxy/acme")
    assert came == [(b"location", rewritten)]
    link = b"<" + location + b'>; rel="next", <https://x.example/>; rel="up"'
    came = response_headers([(b"link", link)], links, b"/proxy/acme")
    assert came[0][1].startswith(b"<" + rewritten + b">")


@pytest.mark.parametrize("piece", [b"a", b"a ", b'a="', b'a="\\"', b"error", b"=,"])
def test_a_challenge_that_never_ends_takes_no_time(piece):
    challenge = piece * (60_000 // len(piece))
    began_at = time.perf_counter()
    blames_token(401, [(b"www-authenticate", challenge)])
    blames_token(403, [(b"www-authenticate", challenge)])
    assert time.perf_counter() - began_at < 0.25


def test_a_link_that_never_ends_takes_no_time():
    links = ApiLinks("https://api.example.com/base")
    value = b"<" * 60_000
    began_at = time.perf_counter()
    assert links.rewritten(b"link", value, b"/proxy/acme") == value
    assert time.perf_counter() - began_at < 0.25


def test_hop_by_hop_cookies_and_forged_marks_do_not_come_back():
    received = [
        (b"set-cookie", b"a"),
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"close, X-Hop, Content-Length"),
        (b"x-hop", b"1"),
        (b"broker-error", b"forged"),
        (b"content-length", b"3"),
        (b"x-kept", b"1"),
    ]
    came = response_headers(received, ApiLinks("https://api.example"), b"/proxy/acme")
    assert came == [(b"content-length", b"3"), (b"x-kept", b"1")]


@pytest.mark.parametrize(
    ("status", "challenge", "is_blamed"),
    [
        (401, None, True),
        (401, b'Bearer error="invalid_token"', True),
        (401, b'Bearer error="insufficient_scope"', False),
        (401, b'Bearer error = insufficient_scope, scope="a b"', False),
        (401, b'Bearer error_description="no error=insufficient_scope here"', True),
        (403, b'Bearer error="invalid_token"', True),
        (403, b'bearer realm="x", ERROR=invalid_token', True),
        (403, b'Basic realm="x", Bearer error="Invalid_Token", error_description="a \\" b"', True),
        (403, b'Bearer error="insufficient_scope"', False),
        (403, b'Bearer error_description="error=\\"invalid_token\\""', False),
        (403, b"Bearer", False),
        (403, None, False),
        (400, b'Bearer error="invalid_token"', False),
        (200, b'Bearer error="invalid_token"', False),
    ],
)
def test_which_answers_blame_the_token(status, challenge, is_blamed):
    headers = [] if challenge is None else [(b"www-authenticate", challenge)]
    assert blames_token(status, headers) is is_blamed
