"""What a request's headers announce: a body (RFC 9112 section 6), wishes to the broker. Pure."""

from __future__ import annotations

from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.outbound.exchange import Headers
from ignition_broker.proxy.paging.asked import HEADER as PAGINATE

WAIT = b"broker-wait"
# One look-up a header, as every call pays for it.
_ANNOUNCING = frozenset({b"content-length", b"transfer-encoding", PAGINATE, WAIT})


def announced(headers: Headers) -> tuple[int, bool, dict[bytes, bytes] | None]:
    """The declared length in bytes, 0 where there is none; whether there is a body; and the wishes:
    `Broker-Paginate` and `Broker-Wait`, several of one name joined by commas, None without any.

    ``headers`` have names in lower case. Raises `InvalidRequest` for a transfer coding that can't
    be passed on.
    """
    length, is_chunked, wishes = 0, False, None
    for name, value in headers:
        if name not in _ANNOUNCING:
            continue
        if name == b"content-length":
            length = int(value) if value.isdigit() else 0
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked" or is_chunked:
                raise InvalidRequest("Transfer-Encoding: must be 'chunked', once.")
            is_chunked = True
        elif wishes is None:
            wishes = {name: value}
        else:
            wishes[name] = wishes[name] + b"," + value if name in wishes else value
    return (0, True, wishes) if is_chunked else (length, length > 0, wishes)
