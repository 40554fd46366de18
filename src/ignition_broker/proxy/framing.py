"""How a request announces its body. Pure."""

from __future__ import annotations

from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.outbound.exchange import Headers


def framing(headers: Headers) -> tuple[int, bool]:
    """The declared length, 0 where none is, and whether there is a body (RFC 9112 section 6).

    Raises `InvalidRequest` for a transfer coding that could not be passed on.
    """
    length, is_chunked = 0, False
    for name, value in headers:
        if name == b"content-length":
            length = int(value) if value.isdigit() else 0
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked" or is_chunked:
                raise InvalidRequest("Transfer-Encoding: must be 'chunked', once.")
            is_chunked = True
    return (0, True) if is_chunked else (length, length > 0)
