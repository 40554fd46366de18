"""httpx's client API over the pool of `http1_pool`, for all requests but the proxied calls.

The pool alone can say whether a request was sent, which decides whether a token request may be
repeated. httpx's errors keep that distinction: connect errors, pool timeouts and proxy errors mean
that nothing was sent; after all others the server may have seen the request (`exchange_error`).
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx

from ignition_broker import __version__
from ignition_broker.outbound.egress import Egress
from ignition_broker.outbound.errors import (
    EgressProxyFailed,
    ExchangeError,
    NoConnectionFree,
    RequestWithdrawn,
    TimedOut,
    Unreachable,
)
from ignition_broker.outbound.exchange import Exchange, Headers
from ignition_broker.outbound.http1_pool import Pool
from ignition_broker.outbound.limits import Limits
from ignition_broker.outbound.places import NoPlaceFree, Places
from ignition_broker.system_errors import shortage_or_name

MAY_SEND = "may_send"
"""A request's extension: a function that is asked right before the request goes out. Where it says
False, `RequestWithdrawn` is raised."""
# The pool writes these itself, and a connection serves one request.
_NOT_SENT_ON = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection"})


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """``connections``: how many requests run at once. A request that runs for longer than
    ``late_after_seconds`` moves to one of ``late_connections`` and makes room for another.
    ``connect_timeout_seconds`` bounds the wait for that room, and again the one for a connection.
    ``largest_answer_bytes`` bounds a body; None: its reader does."""

    connections: int
    connect_timeout_seconds: float
    late_connections: int = 0
    late_after_seconds: float = 60.0
    largest_answer_bytes: int | None = None


class PoolTransport(httpx.AsyncBaseTransport):
    """``server``: its name in errors, such as ``Ignition``.

    Each request has a connection of its own, which is closed behind it: what another answer left
    on a kept connection would be taken for this one's. The answer is waited for without an end,
    whatever httpx's timeouts are: whoever asks cancels.
    """

    def __init__(self, limits: ClientLimits, *, egress: Egress | None = None, server: str) -> None:
        self._limits = limits
        self._egress = egress or Egress()
        self._server = server
        self._places = Places(
            prompt=limits.connections,
            late=limits.late_connections,
            prompt_seconds=limits.late_after_seconds,
        )
        self._pool_limits = Limits(
            connect_timeout_seconds=limits.connect_timeout_seconds,
            timeout_seconds=math.inf,
            idle_timeout_seconds=math.inf,
            connections=limits.connections + limits.late_connections,
            idle_per_tenant=0,
        )
        self._pools: dict[tuple[bytes, bytes], Pool] = {}

    @property
    def late_requests(self) -> int:
        """How many requests run for longer than ``late_after_seconds``."""
        return self._places.late_taken

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends ``request`` once and follows no redirect. Raises `httpx.TransportError`, or
        `RequestWithdrawn`."""
        content = await request.aread()
        has_body = bool(content) or "content-length" in request.headers
        headers: Headers = [
            pair for pair in request.headers.raw if pair[0].lower() not in _NOT_SENT_ON
        ]
        headers.append((b"Connection", b"close"))
        try:
            async with AsyncExitStack() as stack:
                await self._take_place(stack)
                exchange = await self._pool(request.url).send(
                    None,
                    request.method,
                    request.url.raw_path,
                    headers,
                    content if has_body else None,
                    may_send=request.extensions.get(MAY_SEND),
                )
                stack.callback(exchange.close)
                stream = _AnswerStream(exchange, stack.pop_all(), request, self._limits)
        except RequestWithdrawn:
            raise
        except ExchangeError as error:
            raise _httpx_error(error, request) from error
        return httpx.Response(exchange.status, headers=exchange.headers, stream=stream)

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()

    async def _take_place(self, stack: AsyncExitStack) -> None:
        seconds = self._limits.connect_timeout_seconds
        try:
            await stack.enter_async_context(self._places.place(wait_seconds=seconds))
        except NoPlaceFree:
            text = (
                f"All {self._limits.connections} connections to {self._server} have been in use "
                f"for {seconds:g} s."
            )
            raise NoConnectionFree(text) from None

    def _pool(self, url: httpx.URL) -> Pool:
        origin = (url.raw_scheme, url.netloc)
        pool = self._pools.get(origin)
        if pool is None:
            if url.scheme not in {"http", "https"}:
                raise Unreachable(f"{url.scheme}: is no scheme of HTTP.", was_sent=False)
            pool = Pool(
                f"{url.scheme}://{url.netloc.decode('ascii')}",
                self._pool_limits,
                egress=self._egress,
                server=self._server,
            )
            self._pools[origin] = pool
        return pool


class _NoCookies(httpx.Cookies):
    def extract_cookies(self, response: httpx.Response) -> None:
        """Keeps none. To look for some takes as long as all else that httpx does."""


_NO_COOKIES = _NoCookies()


class _Client(httpx.AsyncClient):
    """Requests of all tenants go through one client: a cookie that one's answer set would be sent
    with another's request."""

    @property
    def cookies(self) -> httpx.Cookies:
        return _NO_COOKIES

    @cookies.setter
    def cookies(self, _cookies: object) -> None:
        raise NotImplementedError("This client sends no cookies.")


def http_client(transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
    """A client that reads nothing from the environment, follows no redirect and keeps no cookie."""
    return _Client(
        transport=transport,
        headers={
            "User-Agent": f"ignition-broker/{__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        },
        # The transport has limits of its own.
        timeout=httpx.Timeout(None),
        follow_redirects=False,
        trust_env=False,
    )


def exchange_error(error: httpx.TransportError) -> ExchangeError:
    """What ``error`` says of the exchange: whether the request was sent, above all."""
    if isinstance(error.__cause__, ExchangeError):
        return error.__cause__
    detail = f"The request failed ({shortage_or_name(error)})."
    match error:
        case httpx.PoolTimeout():
            return NoConnectionFree(detail)
        case (
            httpx.ConnectError()
            | httpx.ConnectTimeout()
            | httpx.ProxyError()
            | httpx.UnsupportedProtocol()
        ):
            return Unreachable(detail, was_sent=False)
        case httpx.TimeoutException():
            return TimedOut(detail)
        case _:
            return Unreachable(detail)


def _httpx_error(error: ExchangeError, request: httpx.Request) -> httpx.TransportError:
    match error:
        case NoConnectionFree():
            return httpx.PoolTimeout(error.detail, request=request)
        case EgressProxyFailed():
            return httpx.ProxyError(error.detail, request=request)
        case Unreachable(was_sent=False):
            return httpx.ConnectError(error.detail, request=request)
        case TimedOut():
            return httpx.ReadTimeout(error.detail, request=request)
        case _:
            return httpx.ReadError(error.detail, request=request)


class _AnswerStream(httpx.AsyncByteStream):
    """``held`` is given back when the stream is closed: the exchange, and its place."""

    def __init__(
        self,
        exchange: Exchange,
        held: AsyncExitStack,
        request: httpx.Request,
        limits: ClientLimits,
    ) -> None:
        self._exchange = exchange
        self._held = held
        self._request = request
        self._limits = limits

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received_bytes = 0
        largest = self._limits.largest_answer_bytes
        try:
            while piece := await self._exchange.read():
                received_bytes += len(piece)
                if largest is not None and received_bytes > largest:
                    raise httpx.ReadError(f"more than {largest} bytes", request=self._request)
                yield piece
        except ExchangeError as error:
            raise _httpx_error(error, self._request) from error

    async def aclose(self) -> None:
        await self._held.aclose()
