"""Whether a connection is kept after an answer (RFC 9112 section 9.3): only where the server can
have left nothing on it that would be read as the next answer. Pure."""

from __future__ import annotations

from ignition_broker.outbound.exchange import Headers

# RFC 9110: no body comes with these, whatever their Content-Length says.
BODILESS_STATUSES = frozenset({204, 304})
# Some servers ignore the body of any other method, and read it as the next request.
METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


def may_keep_after_request(method: str, *, has_body: bool) -> bool:
    """A server that sends a body in answer to HEAD may send it late."""
    return method != "HEAD" and (not has_body or method in METHODS_WITH_BODY)


def may_keep_after_head(status: int, headers: Headers, *, is_request_whole: bool) -> bool:
    """Not where an answer announces a body that may not be, nor where it came before the request
    was out: a server that has not read the rest may read it as another request."""
    if status < 200:
        return not _announces_body(headers)
    return is_request_whole and not (status in BODILESS_STATUSES and _announces_body(headers))


def asks_to_close(headers: Headers) -> bool:
    return any(name == b"connection" and b"close" in value.lower() for name, value in headers)


def _announces_body(headers: Headers) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")
        for name, value in headers
    )
