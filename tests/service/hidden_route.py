"""Attacks that look for `/forward-auth`, which is for the engine only, through that engine."""

from __future__ import annotations

import pytest

HIDDEN = [
    b"/forward-auth/acme",
    b"/forward-auth/acme?rejected_token_sha256=" + b"0" * 64,
    b"/%66orward-auth/acme",
    b"/forward%2dauth/acme",
    b"/forward-auth%2facme",
    b"/forward-auth/%61cme",
    b"/%2566orward-auth/acme",
    b"//forward-auth/acme",
    b"/x/../forward-auth/acme",
    b"/x/%2e%2e/forward-auth/acme",
    b"/./forward-auth/acme",
    b"/forward-auth;x/acme",
    b"/FORWARD-AUTH/acme",
    b"/forward-auth/acme/",
    b"/forward-auth/acme/../acme",
    b"http://broker/forward-auth/acme",
    b"/proxy/acme/../../forward-auth/acme",
    b"/proxy/acme/%2e%2e/%2e%2e/forward-auth/acme",
    b"\\forward-auth/acme",
]


@pytest.mark.parametrize("target", HIDDEN, ids=repr)
def test_no_spelling_of_the_tokens_route_gives_one(caller, access_token, target):
    head = b"GET " + target + b" HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n"
    answer = caller.send(head + b"Authorization: Bearer " + caller.key.encode() + b"\r\n\r\n")
    assert answer.status in {400, 404, 503}
    assert access_token not in answer.raw
    assert answer.values(b"authorization") == []
