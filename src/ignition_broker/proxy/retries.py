"""Which answers and failures are worth another try. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from email.utils import parsedate_to_datetime

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
MOST_RETRIES = 10
BUSY_STATUSES = frozenset({429, 503})


def retries_asked_for(method: str, headers: Iterable[tuple[bytes, bytes]]) -> int:
    """By ``Broker-Retry``; none for a method that may do twice what it should do once."""
    if method not in IDEMPOTENT_METHODS:
        return 0
    asked = [value for name, value in headers if name == b"broker-retry"]
    if len(asked) != 1 or not asked[0].isdigit() or len(asked[0]) > 4:
        return 0
    return min(int(asked[0]), MOST_RETRIES)


def retry_after_seconds(headers: Iterable[tuple[bytes, bytes]], now: datetime) -> float | None:
    """How long a 429 or 503 asks to wait (RFC 9110 section 10.2.3); None: it does not say."""
    for name, value in headers:
        if name == b"retry-after":
            return _seconds(value.decode("latin-1").strip(), now)
    return None


def _seconds(value: str, now: datetime) -> float | None:
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at - now).total_seconds()) if at.tzinfo is not None else None
