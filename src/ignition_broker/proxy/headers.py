"""Which headers go to the API and which come back to the caller. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from ignition_broker.outbound.exchange import Headers

# RFC 9110 section 7.6.1, and those that only made sense on the caller's own connection.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Some servers take the target, the host, the method or the caller's address from one of these.
_OVERRIDING = frozenset(
    name.encode()
    for name in (
        *("x-original-host", "x-original-method", "x-original-path", "x-original-uri"),
        *("x-original-url", "x-rewrite-uri", "x-rewrite-url", "x-host", "x-http-host-override"),
        *("x-client-ip", "x-cluster-client-ip", "x-originating-ip", "x-real-ip", "x-remote-addr"),
        *("x-remote-ip", "client-ip", "true-client-ip", "cf-connecting-ip", "fastly-client-ip"),
        *("forwarded", "forwarded-for", "x-forwarded", "x-original-for", "x-original-remote-addr"),
    )
)
_NOT_SENT = (
    HOP_BY_HOP
    | _OVERRIDING
    | {b"authorization", b"cookie", b"cookie2", b"expect", b"host", b"x-request-id"}
)
_NOT_SENT_PREFIXES = (b"x-forwarded-", b"x-envoy-", b"broker-")
ALLOWANCE_REMAINING: Final = b"broker-allowance-remaining"
ALLOWANCE_RESET: Final = b"broker-allowance-reset"
# The API may not say by our names what is ours to say.
_NOT_RETURNED = HOP_BY_HOP | {
    b"set-cookie",
    b"set-cookie2",
    b"broker-error",
    b"x-request-id",
    ALLOWANCE_REMAINING,
    ALLOWANCE_RESET,
}
# CPython 3.11 looks for bytes in bytes by way of an error that it drops: ten times slower.
_UNDERSCORE = ord("_")
_NAMES_NOTHING = frozenset({b"keep-alive", b"close"})
_LINKING = frozenset({b"location", b"link"})
# Matches a quoted string as a whole, so that `error=` within a description is not a parameter.
_CHALLENGE_PARAMETER = re.compile(
    rb'(?<![A-Za-z0-9_-])([A-Za-z0-9_-]+)\s*=\s*("(?:\\.|[^"\\])*"|[^\s,"]+)'
)
_LINK_TARGET = re.compile(rb"<([^<>]*)>")


def request_headers(
    received: Iterable[tuple[bytes, bytes]], access_token: str, request_id: str
) -> Headers:
    """The headers for the API: in their order, duplicates kept, the tenant's token in place of the
    caller's key. ``received`` have names in lower case."""
    headers: Headers = []
    named: frozenset[bytes] = frozenset()
    is_chunked = False
    for pair in received:
        name = pair[0]
        if name in _NOT_SENT:
            if name == b"connection":
                named = _named(named, pair[1])
            elif name == b"transfer-encoding":
                is_chunked = True
        elif (_goes if len(name) <= _LONGEST_REMEMBERED else _may_go)(name):
            headers.append(pair)
    if is_chunked:
        # Both forms of framing must not go out together (RFC 9112 section 6.3).
        headers = [pair for pair in headers if pair[0] != b"content-length"]
    if named:
        headers = [pair for pair in headers if pair[0] not in named]
    headers.append((b"authorization", b"Bearer " + access_token.encode("ascii")))
    headers.append((b"x-request-id", request_id.encode("ascii")))
    return headers


class ApiLinks:
    """Turns links below the API's base URL into links through the proxy."""

    def __init__(self, api_url: str) -> None:
        parts = urlsplit(api_url)
        self._origin = f"{parts.scheme}://{parts.netloc}".lower().encode("ascii")
        self._base = parts.path.rstrip("/").encode("ascii")

    def rewritten(self, name: bytes, value: bytes, prefix: bytes) -> bytes:
        """The value of a `Location` or `Link` header. ``prefix`` is the proxy's path up to the
        tenant, such as ``/proxy/acme``."""
        if name == b"location":
            return self._link(value, prefix)
        return _LINK_TARGET.sub(lambda match: b"<" + self._link(match[1], prefix) + b">", value)

    def _link(self, target: bytes, prefix: bytes) -> bytes:
        path = target
        if target[: len(self._origin)].lower() == self._origin:
            path = target[len(self._origin) :] or b"/"
        elif not target.startswith(b"/") or target.startswith(b"//"):
            return target
        rest = path[len(self._base) :]
        if not path.startswith(self._base) or rest[:1] not in (b"", b"/", b"?", b"#"):
            return target
        if path[:1] not in (b"/", b"?", b"#"):
            return target
        return prefix + rest


def response_headers(received: Headers, links: ApiLinks, prefix: bytes) -> Headers:
    """The headers for the caller, of ``received`` from the API, whose names are in lower case."""
    headers: Headers = []
    named: frozenset[bytes] = frozenset()
    for pair in received:
        name = pair[0]
        if name in _NOT_RETURNED:
            if name == b"connection":
                named = _named(named, pair[1])
        elif _UNDERSCORE in name and name.replace(b"_", b"-") in _NOT_RETURNED:
            continue
        elif name in _LINKING:
            headers.append((name, links.rewritten(name, pair[1], prefix)))
        else:
            headers.append(pair)
    if named:
        headers = [pair for pair in headers if pair[0] not in named]
    return headers


def blames_token(status: int, headers: Headers) -> bool:
    """Whether the call may succeed with another token (RFC 6750 section 3.1).

    True for a 401, unless it asks for more scope, and for a 403 whose challenge says
    `invalid_token`, since some APIs answer so to an expired token. ``headers``: names in lower
    case.
    """
    if status not in (401, 403):
        return False
    errors = _challenge_errors(headers)
    return b"insufficient_scope" not in errors if status == 401 else b"invalid_token" in errors


def _challenge_errors(headers: Headers) -> set[bytes]:
    """The ``error`` parameters of all challenges, in lower case (RFC 9110 section 11.6.1)."""
    return {
        value.strip(b'"').lower()
        for name, challenges in headers
        if name == b"www-authenticate"
        for parameter, value in _CHALLENGE_PARAMETER.findall(challenges)
        if parameter.lower() == b"error"
    }


def _may_go(name: bytes) -> bool:
    """Whether a header may go out that `_NOT_SENT` does not name in this spelling.

    Servers that speak CGI or WSGI take '_' and '-' for the same, in `Content_Length` too.
    """
    read_as = name.replace(b"_", b"-")
    is_another_framing = read_as == b"content-length" != name
    return (
        read_as not in _NOT_SENT
        and not is_another_framing
        and not read_as.startswith(_NOT_SENT_PREFIXES)
    )


# Callers send the same few names over and over. Long names are not cached, to bound the memory.
_goes = lru_cache(maxsize=1000)(_may_go)
_LONGEST_REMEMBERED = 64


def _named(before: frozenset[bytes], connection: bytes) -> frozenset[bytes]:
    """``before`` and what this `Connection` header names. It can't take `Content-Length` away, on
    which the framing depends."""
    if connection in _NAMES_NOTHING:
        return before
    named = frozenset(option.strip().lower() for option in connection.split(b","))
    return before | (named - {b"content-length"})
