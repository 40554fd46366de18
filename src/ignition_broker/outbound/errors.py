"""What can go wrong on the way to a server and back; none knows an HTTP status.

ExchangeError
├── NoConnectionFree   all that may be held are in use
├── RequestWithdrawn   when it was about to be sent, it was not to be sent any more
├── Unreachable        no connection, or it broke before the answer was whole
│   └── EgressProxyFailed   the egress proxy on the way to the server made none
└── TimedOut           no response headers in time, or silence amid the answer
"""

from __future__ import annotations


class ExchangeError(Exception):
    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class NoConnectionFree(ExchangeError):
    """Nothing was sent."""


class RequestWithdrawn(ExchangeError):
    """Nothing was sent."""


class Unreachable(ExchangeError):
    """``was_sent``: the server may have seen the request, or a part of it. ``may_be_stale``: it
    went out on a kept connection, which the server may have closed before it saw the request."""

    def __init__(self, detail: str, *, was_sent: bool = True, may_be_stale: bool = False) -> None:
        super().__init__(detail)
        self.was_sent = was_sent
        self.may_be_stale = may_be_stale


class EgressProxyFailed(Unreachable):
    """Nothing was sent to the server."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, was_sent=False)


class TimedOut(ExchangeError):
    """The server may have seen the request."""


class BodyBrokeOff(Exception):
    """Raised by a request's body that will never be whole."""
