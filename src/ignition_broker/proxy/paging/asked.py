"""What a caller asks for with `Broker-Paginate`. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ignition_broker.broker.errors import InvalidRequest

HEADER: Final = b"broker-paginate"
ALL: Final = "all"
CHECKPOINTS: Final = "checkpoints"


class PagingRefused(InvalidRequest):
    """`Broker-Paginate` says something unknown, or stands on a call that has no pages."""


@dataclass(frozen=True, slots=True)
class PagesAsked:
    """``with_checkpoints``: a line of the broker's own is wanted behind every page."""

    with_checkpoints: bool


def pages_asked(value: bytes, method: str, *, has_body: bool) -> PagesAsked:
    """Reads the header's ``value``, several of them joined by commas. Raises `PagingRefused`."""
    words = [word.strip().lower() for word in value.decode("latin-1").split(",")]
    if ALL not in words or len(set(words)) != len(words) or set(words) - {ALL, CHECKPOINTS}:
        raise PagingRefused("Broker-Paginate: must be 'all' or 'all, checkpoints'.")
    if method != "GET":
        raise PagingRefused(f"Broker-Paginate: goes with GET, not with {method}; leave it out.")
    if has_body:
        raise PagingRefused("Broker-Paginate: goes with a GET without a body; leave one out.")
    return PagesAsked(with_checkpoints=CHECKPOINTS in words)
