"""Why a stream of pages ended before its last page; each is told in the stream's last line."""

from __future__ import annotations

from ignition_broker.broker.errors import BrokerError


class PageRefused(BrokerError):
    """The API answered a page with another status than 200. ``retry_after_seconds``: when it asks
    to be called again; None: it does not say."""

    def __init__(self, detail: str, *, status: int, retry_after_seconds: float | None) -> None:
        super().__init__(detail)
        self.upstream_status = status
        self.retry_after_seconds = retry_after_seconds


class PageUnreadable(BrokerError):
    """A page is too large or not of the known form, or does not lead to another one."""
