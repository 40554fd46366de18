"""Which paths go out, and that none leaves the API's base path."""

from __future__ import annotations

import itertools
import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
def test_paths_inside_the_base_go_out_byte_for_byte(path, query, target):
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
def test_paths_that_could_leave_the_base_are_refused(path):
    with pytest.raises(PathRefused):
        upstream_target(b"/base", path, b"")


AHEAD = b"/a/ /a%2f /a/%20 /a/%c2%a0 /a/%e3%80%80 /a/%2520".split()
DOTS = b".. %2e%2e .%2e %252e. .".split()
BEHIND = [
    *b"%3f %23 %253f %2523 ; %3b %20 %2520 %09 %00 %0a %0d %a0 %c2%a0 %c2%85 %ff %c0%af".split(),
    *b"%c0%80 : %3a$DATA , ! ' %22 | + * &x = %26 %e2%88%95 %ef%bc%8f %u002f %u2215 %5c".split(),
    *(b"%c1%9c", b"", b"@", b"%zz", b"%"),
]


def test_nothing_after_the_dots_hides_them():
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
        # Cut off where some server stops reading, and trimmed.
        segments = {re.split(rb"[;?#:\s\0]", part.lstrip())[0] for part in target.split(b"/")}
        assert not {b".", b".."} & segments
        target = unquote_to_bytes(target)
