"""Which calls may be sent again, and after which answers. Pure."""

from __future__ import annotations

from collections.abc import Iterable

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
MOST_RETRIES = 10
BUSY_STATUSES = frozenset({429, 503})


def retries_asked_for(method: str, headers: Iterable[tuple[bytes, bytes]]) -> int:
    """How often the caller allows a call to be repeated, by ``Broker-Retry``: 0 to `MOST_RETRIES`.

    0 for a method that is not idempotent (RFC 9110 section 9.2.2) and for a malformed header.
    """
    if method not in IDEMPOTENT_METHODS:
        return 0
    asked = [value for name, value in headers if name == b"broker-retry"]
    if len(asked) != 1 or not asked[0].isdigit() or len(asked[0]) > 4:
        return 0
    return min(int(asked[0]), MOST_RETRIES)
