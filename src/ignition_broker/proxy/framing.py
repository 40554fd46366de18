"""What a request's headers announce: a body (RFC 9112 section 6), a wish for all pages. Pure."""

from __future__ import annotations

from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.outbound.exchange import Headers
from ignition_broker.proxy.paging.asked import HEADER as PAGINATE

# One look-up a header, as every call pays for it.
_ANNOUNCING = frozenset({b"content-length", b"transfer-encoding", PAGINATE})


def announced(headers: Headers) -> tuple[int, bool, bytes | None]:
    """The declared length in bytes, 0 where there is none, whether there is a body, and what
    `Broker-Paginate` says.

    ``headers`` have names in lower case. Raises `InvalidRequest` for a transfer coding that can't
    be passed on.
    """
    length, is_chunked, paginate = 0, False, None
    for name, value in headers:
        if name not in _ANNOUNCING:
            continue
        if name == b"content-length":
            length = int(value) if value.isdigit() else 0
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked" or is_chunked:
                raise InvalidRequest("Transfer-Encoding: must be 'chunked', once.")
            is_chunked = True
        else:
            paginate = value if paginate is None else paginate + b"," + value
    return (0, True, paginate) if is_chunked else (length, length > 0, paginate)
