"""How the console's templates write times, addresses and details. Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode

from ignition_broker.grant_ids import DEFAULT_CLIENT, client_of, tenant_of

_UNITS: Final = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
_LONGEST_DETAIL: Final = 300


def utc(moment: datetime) -> str:
    """Such as ``2026-01-31 08:00:00 UTC``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(moment: datetime) -> str:
    """As the attribute ``datetime`` of HTML takes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_now(moment: datetime, now: datetime) -> str:
    """Such as ``in 2 h 5 min`` or ``3 d ago``: at most two units. console.js counts on the same
    way."""
    seconds = round((moment - now).total_seconds())
    left, parts = abs(seconds), list[str]()
    for unit, length in _UNITS:
        number, left = divmod(left, length)
        if number:
            parts.append(f"{number} {unit}")
        elif parts:
            break
        if len(parts) == 2:
            break
    text = " ".join(parts) or "0 s"
    return f"{text} ago" if seconds < 0 else f"in {text}"


def tenant_page(grant: str) -> str:
    """The address of the page of a grant's tenant."""
    named = [("tenant", tenant_of(grant))]
    if client_of(grant) != DEFAULT_CLIENT:
        named.append(("client", client_of(grant)))
    return f"/tenant?{urlencode(named)}"


def detail(value: object) -> str:
    """A value of an event's detail as text, cut if it is long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_DETAIL else text[:_LONGEST_DETAIL] + "…"
