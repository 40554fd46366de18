"""What can go wrong on the way to the API; none knows an HTTP status.

ProxyError
├── PathRefused             the target could leave the API's base path
├── UpstreamUnreachable     no connection, or it broke before an answer began
└── UpstreamTimeout         no response headers in time
"""

from __future__ import annotations


class ProxyError(Exception):
    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class PathRefused(ProxyError):
    pass


class UpstreamUnreachable(ProxyError):
    pass


class UpstreamTimeout(ProxyError):
    pass
