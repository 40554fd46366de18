"""How a request announces its body (RFC 9112 section 6). Pure."""

from __future__ import annotations

from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.outbound.exchange import Headers


def framing(headers: Headers) -> tuple[int, bool]:
    """The declared length in bytes, 0 where there is none, and whether there is a body.

    ``headers`` have names in lower case. Raises `InvalidRequest` for a transfer coding that can't
    be passed on.
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
