"""Which headers go out and which come back. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

Headers = list[tuple[bytes, bytes]]

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
_NOT_SENT = HOP_BY_HOP | {
    b"authorization",
    b"cookie",
    b"expect",
    b"forwarded",
    b"host",
    b"x-real-ip",
    b"x-request-id",
}
_NOT_SENT_PREFIXES = (b"x-forwarded-", b"broker-")
_NOT_RETURNED = HOP_BY_HOP | {b"set-cookie", b"set-cookie2", b"broker-error", b"x-request-id"}
_LINK_TARGET = re.compile(rb"<([^>]*)>")


def request_headers(
    received: Iterable[tuple[bytes, bytes]], access_token: str, request_id: str
) -> Headers:
    """What goes out: in order, duplicates kept, with this tenant's token in place of the key."""
    received = list(received)
    # Framing is not the caller's to take away, and has one form (RFC 9112 section 6.3).
    dropped = _NOT_SENT | (_named_by_connection(received) - {b"content-length"})
    if any(name == b"transfer-encoding" for name, _ in received):
        dropped |= {b"content-length"}
    headers = [
        (name, value)
        for name, value in received
        if name not in dropped and not name.startswith(_NOT_SENT_PREFIXES)
    ]
    headers.append((b"authorization", b"Bearer " + access_token.encode("ascii")))
    headers.append((b"x-request-id", request_id.encode("ascii")))
    return headers


class ResponseHeaders:
    """What comes back; links into the API's own base are made links through the proxy."""

    def __init__(self, api_url: str, prefix: bytes) -> None:
        parts = urlsplit(api_url)
        self._origin = f"{parts.scheme}://{parts.netloc}".lower().encode("ascii")
        self._base = parts.path.rstrip("/").encode("ascii")
        self._prefix = prefix

    def of(self, received: Iterable[tuple[bytes, bytes]]) -> Headers:
        received = [(name.lower(), value) for name, value in received]
        # A length that the upstream's Connection header names stays: it frames the body.
        dropped = _NOT_RETURNED | (_named_by_connection(received) - {b"content-length"})
        return [
            (name, self._rewritten(name, value)) for name, value in received if name not in dropped
        ]

    def _rewritten(self, name: bytes, value: bytes) -> bytes:
        if name == b"location":
            return self._link(value)
        if name == b"link":
            return _LINK_TARGET.sub(lambda match: b"<" + self._link(match[1]) + b">", value)
        return value

    def _link(self, target: bytes) -> bytes:
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
        return self._prefix + rest


def is_token_problem(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a 401 may be mended by another token: not one that asks for more scope
    (RFC 6750 section 3.1)."""
    return not any(
        name.lower() == b"www-authenticate" and b"insufficient_scope" in value
        for name, value in headers
    )


def _named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    return frozenset(
        option.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for option in value.split(b",")
    )
