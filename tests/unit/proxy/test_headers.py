"""Which headers go out and come back, and which answers blame the token."""

from __future__ import annotations

import time

import pytest

from ignition_broker.proxy.headers import (
    ApiLinks,
    blames_token,
    request_headers,
    response_headers,
)


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
