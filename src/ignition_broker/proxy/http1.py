"""The API over HTTP/1.1: a pool of kept connections, their limits and their clock.

Why not a library's client: docs/decisions/0002-proxy-client.md.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator
from functools import partial
from urllib.parse import urlsplit

from ignition_broker.broker.errors import Unavailable
from ignition_broker.proxy.connection import Connection
from ignition_broker.proxy.errors import UpstreamTimeout, UpstreamUnreachable
from ignition_broker.proxy.exchange import Exchange
from ignition_broker.proxy.headers import Headers
from ignition_broker.proxy.upstream import UpstreamLimits

# Below what servers keep idle connections for (uvicorn: 5 s), lest a call meet a closing one.
KEEP_ALIVE_SECONDS = 4.0
# One look at all deadlines costs less than a timer a request.
LONGEST_SWEEP_SECONDS = 0.25


class Http1Upstream:
    """``api_url``: the origin that every request goes to; its path is not used here."""

    def __init__(self, api_url: str, limits: UpstreamLimits) -> None:
        parts = urlsplit(api_url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._is_tls = parts.scheme == "https"
        self._host_line = b" HTTP/1.1\r\nHost: " + parts.netloc.encode("idna") + b"\r\n"
        self._limits = limits
        self._context: ssl.SSLContext | None = None
        self._free: deque[Connection] = deque()
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._opened = 0
        self._connections: set[Connection] = set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._sweep_seconds = min(
            LONGEST_SWEEP_SECONDS, limits.timeout_seconds / 8, limits.idle_timeout_seconds / 8
        )

    async def send(
        self, method: str, target: bytes, headers: Headers, body: AsyncIterator[bytes] | None
    ) -> Exchange:
        parts = [method.encode("ascii"), b" ", target, self._host_line]
        is_chunked = body is not None
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
            if name == b"content-length":
                is_chunked = False
        parts.append(b"Transfer-Encoding: chunked\r\n\r\n" if is_chunked else b"\r\n")
        connection = self._newest_free() or await self._when_one_is_free()
        exchange = connection.request(
            method,
            b"".join(parts),
            body,
            is_chunked=is_chunked,
            timeout_seconds=self._limits.timeout_seconds,
            idle_timeout_seconds=self._limits.idle_timeout_seconds,
        )
        try:
            await exchange.answered()
        except UpstreamUnreachable as error:
            if error.may_be_stale:
                self._close_free()
            raise
        except BaseException:
            exchange.close()
            raise
        return exchange

    async def aclose(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._close_free()
        for connection in list(self._connections):
            connection.abort()

    def _newest_free(self) -> Connection | None:
        oldest = asyncio.get_running_loop().time() - KEEP_ALIVE_SECONDS
        while self._free:
            connection = self._free.pop()
            if connection.is_open and connection.free_since > oldest:
                return connection
            connection.abort()
        return None

    async def _when_one_is_free(self) -> Connection:
        if self._opened < self._limits.connections:
            self._opened += 1
            return await self._open()
        seconds = self._limits.connect_timeout_seconds
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(seconds):
                connection = await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                given = turn.result()
                self._give_place() if given is None else self._on_free(given)
            if isinstance(error, TimeoutError):
                raise Unavailable(
                    f"All {self._limits.connections} connections to the API have been in use for "
                    f"{seconds:g} s."
                ) from None
            raise
        if connection is not None and connection.is_open:
            return connection
        if connection is not None:
            self._opened += 1
        return await self._open()

    async def _open(self) -> Connection:
        """In a place that is counted already."""
        loop = asyncio.get_running_loop()
        seconds = self._limits.connect_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                _transport, connection = await loop.create_connection(
                    partial(Connection, loop, self._on_free, self._on_lost),
                    self._host,
                    self._port,
                    ssl=self._tls(),
                )
        except BaseException as error:
            self._give_place()
            if isinstance(error, TimeoutError):
                raise UpstreamUnreachable(
                    f"The API does not accept connections within {seconds:g} s.", was_sent=False
                ) from error
            if isinstance(error, OSError):
                raise UpstreamUnreachable(
                    f"The API can't be reached: {type(error).__name__}.", was_sent=False
                ) from error
            raise
        self._connections.add(connection)
        if self._sweeping is None:
            self._sweep_later()
        return connection

    def _tls(self) -> ssl.SSLContext | None:
        if self._is_tls and self._context is None:
            self._context = ssl.create_default_context()
            self._context.set_alpn_protocols(["http/1.1"])
        return self._context

    def _on_free(self, connection: Connection) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        self._free.append(connection)

    def _on_lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._give_place()

    def _give_place(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._opened -= 1

    def _close_free(self) -> None:
        """One that turned out dead speaks for all that lay idle beside it."""
        while self._free:
            self._free.pop().abort()

    def _sweep_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(self._sweep_seconds, self._sweep)

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        for exchange in [each.exchange for each in self._connections]:
            if exchange is not None and exchange.deadline < now:
                exchange.fail(self._too_late(exchange))
        while self._free and self._free[0].free_since < now - KEEP_ALIVE_SECONDS:
            self._free.popleft().abort()
        self._sweeping = None
        if self._connections:
            self._sweep_later()

    def _too_late(self, exchange: Exchange) -> UpstreamTimeout:
        if exchange.has_answered:
            seconds = self._limits.idle_timeout_seconds
            return UpstreamTimeout(f"The API's answer fell silent for {seconds:g} s.")
        seconds = self._limits.timeout_seconds
        return UpstreamTimeout(f"The API sent no response headers within {seconds:g} s.")
