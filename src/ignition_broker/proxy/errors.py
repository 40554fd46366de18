"""What can go wrong on the way to the API; none knows an HTTP status.

ProxyError
├── PathRefused             the target could leave the API's base path
├── UpstreamUnreachable     no connection, or it broke before an answer began
└── UpstreamTimeout         no response headers in time, or silence amid the answer
"""

from __future__ import annotations


class ProxyError(Exception):
    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class PathRefused(ProxyError):
    pass


class UpstreamUnreachable(ProxyError):
    """``was_sent``: the API may have seen the request, or a part of it. ``may_be_stale``: it went
    out on a kept connection, which the API may have closed before it saw the request."""

    def __init__(self, detail: str, *, was_sent: bool = True, may_be_stale: bool = False) -> None:
        super().__init__(detail)
        self.was_sent = was_sent
        self.may_be_stale = may_be_stale


class UpstreamTimeout(ProxyError):
    pass
