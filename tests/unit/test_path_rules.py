from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ignition_broker.model import Caller, Scope
from ignition_broker.path_rules import MOST_RULES, MalformedRule, PathRules, check_rules
from ignition_broker.proxy.paths import PathRefused, upstream_target

RULES = ["GET /v1/*", "POST /v1/proposals", "* /health", "DELETE /v1/drafts/*"]


def is_allowed(method: str, path: bytes, *headers: tuple[bytes, bytes], rules=RULES) -> bool:
    return PathRules(rules).objection(method, path, headers) is None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", b"/v1/"),
        ("GET", b"/v1/proposals"),
        ("GET", b"/v1/a%2Fb/%C3%A9/100%25"),
        ("GET", b"/v1//x;y=z/*"),
        ("HEAD", b"/v1/proposals"),
        ("POST", b"/v1/proposals"),
        ("DELETE", b"/v1/drafts/7"),
        ("PATCH", b"/health"),
        ("HEAD", b"/health"),
    ],
)
def test_what_a_rule_names_is_allowed(method, path):
    assert is_allowed(method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", b"/v1"),
        ("GET", b"/v10/x"),
        ("GET", b"/V1/x"),
        ("GET", b"/x/v1/y"),
        ("GET", b"//v1/x"),
        ("GET", b"/;x/v1/y"),
        ("GET", b"/v1;x/y"),
        ("GET", b"/v1%2Fadmin"),
        ("GET", b"/v1%2fadmin"),
        ("GET", b"/%76%31/x"),
        ("GET", b"/%2576%2531/x"),
        ("GET", b"%2Fv1%2Fx"),
        ("GET", b"/v1/%zz"),
        ("GET", b"/v1/%"),
        ("GET", b"/v1/%u002e%u002e/admin"),
        ("GET", b"/v1/%c0%ae%c0%ae/admin"),
        ("GET", b"/v1/%25c0%25ae/admin"),
        ("GET", b"/v1/\xff"),
        ("GET", b"/v1/%2525252541"),
        ("GET", b"/"),
        ("GET", b""),
        ("get", b"/v1/x"),
        ("PUT", b"/v1/x"),
        ("*", b"/v1/x"),
        ("", b"/v1/x"),
        ("POST", b"/v1/proposals/"),
        ("POST", b"/v1/proposals;x"),
        ("POST", b"/v1/proposals%3Fx"),
        ("POST", b"/v1/proposals/7"),
        ("POST", b"/v1/%70roposals"),
        ("POST", b"/v1/proposal"),
        ("HEAD", b"/v1"),
        ("GET", b"/healthz"),
    ],
)
def test_everything_that_no_rule_names_is_forbidden(method, path):
    assert not is_allowed(method, path)


def test_a_rule_for_head_does_not_allow_get():
    assert is_allowed("HEAD", b"/x", rules=["HEAD /x"])
    assert not is_allowed("GET", b"/x", rules=["HEAD /x"])


@pytest.mark.parametrize(
    "name",
    [
        b"x-http-method-override",
        b"x-http-method",
        b"x-method-override",
        b"x_http_method_override",
        b"x-http_method-override",
    ],
)
def test_a_method_named_by_a_header_must_be_allowed_too(name):
    assert not is_allowed("POST", b"/v1/proposals", (name, b"DELETE"))
    assert not is_allowed("POST", b"/v1/proposals", (name, b" delete "))
    assert not is_allowed("POST", b"/v1/proposals", (name, b"GET"), (name, b"PUT"))
    assert not is_allowed("POST", b"/v1/proposals", (name, b"GET, DELETE"))
    assert not is_allowed("POST", b"/v1/proposals", (name, b""))
    assert not is_allowed("POST", b"/v1/proposals", (name, b"\xff"))
    assert is_allowed("POST", b"/v1/proposals", (b"x-other", b"DELETE"), (name, b"get"))
    assert is_allowed("POST", b"/health", (name, b"DELETE"))


@pytest.mark.parametrize("name", [b"x-original-url", b"x-rewrite-url", b"x_original_url"])
def test_a_header_that_some_servers_read_in_place_of_the_path_is_refused(name):
    assert not is_allowed("GET", b"/x", (name, b"/x"), rules=["* /*"])


def test_a_rule_that_cannot_be_read_allows_nothing_and_leaves_the_others():
    rules = ["REGEX ^/.*", "GET /x"]
    assert is_allowed("GET", b"/x", rules=rules)
    assert not is_allowed("GET", b"/y", rules=rules)
    assert not is_allowed("GET", b"/y", rules=[])


@pytest.mark.parametrize(
    "rule",
    [
        "GET /",
        "GET /*",
        "* /*",
        "GET /v1*",
        "VERSION-CONTROL /x",
        "GET /a.b/.well-known/..c/~d_e-f!$&'()+=:@/",
        "GET /" + "a" * 999,
    ],
)
def test_rules(rule):
    check_rules([rule])


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "GET",
        "/v1/*",
        "get /v1/*",
        "GET v1",
        "GET  /v1",
        " GET /v1",
        "GET /v1 ",
        "GET /v1\n",
        "GET|HEAD /v1",
        "** /v1",
        "GET https://api.example/v1",
        "GET /v1/*/x",
        "GET /v1/**",
        "GET /v1/%2e",
        "GET /v1?x=1",
        "GET /v1#x",
        "GET /v1;x",
        "GET /v1,/v2",
        "GET /v1\\x",
        "GET /é",
        "GET //v1",
        "GET /v1//x",
        "GET /v1/..",
        "GET /v1/../*",
        "GET /./x",
        "GET /" + "a" * 1000,
    ],
)
def test_an_invalid_rule_is_refused_with_advice(rule):
    with pytest.raises(MalformedRule, match=r"'GET /v1/\*'"):
        check_rules(["GET /x", rule])


def test_a_list_of_rules_is_neither_empty_nor_endless():
    check_rules(["GET /x"] * MOST_RULES)
    with pytest.raises(MalformedRule, match="at least one"):
        check_rules([])
    with pytest.raises(MalformedRule, match="100"):
        check_rules(["GET /x"] * (MOST_RULES + 1))


def test_a_key_compiles_its_rules_once():
    caller = Caller("x", frozenset({Scope.PROXY}), ("*",), paths=("GET /v1/*",))
    assert caller.path_rules is caller.path_rules
    assert caller.path_rules.allows("GET", b"/v1/x")
    assert not Caller("x", frozenset({Scope.PROXY}), ("*",)).path_rules.allows("GET", b"/v1/x")


ODD_PIECES = (
    b"v1 V1 / / // . .. ; ;x ? # * a %2e %2E %2f %252f %2F %3b %3f %76 %31 %5c %25 %c0%ae %u002e % "
    b"drafts proposals admin \\ \xc3\xa9 %C3%A9"
).split()
beginnings = st.sampled_from(
    b"/v1/ /v1/drafts/ /v1/proposals /health /v1 /%76%31/ /v1%2Fdrafts%2F /v1;x/ //v1/".split()
)
pieces = st.sampled_from(ODD_PIECES) | st.binary(max_size=2)
paths = st.builds(lambda head, tail: head + b"".join(tail), beginnings, st.lists(pieces))
ALLOWED = {
    "GET": ((b"/v1/",), (b"/health",)),
    "HEAD": ((b"/v1/",), (b"/health",)),
    "POST": ((), (b"/v1/proposals", b"/health")),
    "DELETE": ((b"/v1/drafts/",), (b"/health",)),
    "PATCH": ((), (b"/health",)),
}


@settings(max_examples=500)
@given(method=st.sampled_from(sorted(ALLOWED)), path=paths)
def test_what_is_allowed_stays_allowed_however_a_server_reads_it(method, path):
    if not is_allowed(method, path):
        return
    try:
        upstream_target(b"/base", path, b"")
    except PathRefused:
        return
    prefixes, exact = ALLOWED[method]
    for reading in readings(path):
        assert reading.startswith(prefixes) or reading in exact, (path, reading)


def readings(path: bytes) -> set[bytes]:
    """What servers are known to make of a path: they decode it, once or more often, cut it off
    where a query or a fragment seems to begin, cut off path parameters, merge slashes, and resolve
    dot segments, in any order."""
    found = {path}
    waiting = [path]
    while waiting:
        path = waiting.pop()
        for change in (
            unquote_to_bytes,
            leniently_decoded,
            cut_off,
            without_parameters,
            merged,
            resolved,
        ):
            changed = change(path)
            if changed not in found:
                found.add(changed)
                waiting.append(changed)
    return found


def leniently_decoded(path: bytes) -> bytes:
    """Overlong UTF-8, and the encoding that never was a standard."""
    return path.replace(b"\xc0\xae", b".").replace(b"%u002e", b".")


def cut_off(path: bytes) -> bytes:
    return path.split(b"?")[0].split(b"#")[0].split(b"\0")[0]


def without_parameters(path: bytes) -> bytes:
    return b"/".join(segment.split(b";")[0] for segment in path.split(b"/"))


def merged(path: bytes) -> bytes:
    while b"//" in path:
        path = path.replace(b"//", b"/")
    return path


def resolved(path: bytes) -> bytes:
    """RFC 3986 section 5.2.4, with backslashes taken for slashes."""
    kept: list[bytes] = []
    for segment in path.replace(b"\\", b"/").split(b"/"):
        if segment == b"..":
            del kept[max(1, len(kept) - 1) :]
        elif segment != b".":
            kept.append(segment)
    return b"/".join(kept)
