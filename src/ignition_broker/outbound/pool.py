"""A server over HTTP/1.1: a pool of kept connections, their limits and their clock.

Why not a library's client: docs/decisions/0002-proxy-client.md.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohappyeyeballs import start_connection

from ignition_broker.outbound.connection import Connection
from ignition_broker.outbound.errors import NoConnectionFree, TimedOut, Unreachable
from ignition_broker.outbound.exchange import Exchange, Headers
from ignition_broker.outbound.tls import client_context

# Below what servers keep idle connections for (uvicorn: 5 s), lest a call meet a closing one.
KEEP_ALIVE_SECONDS = 4.0
# One look at all deadlines costs less than a timer a request.
LONGEST_SWEEP_SECONDS = 0.25
# Before the next address is tried beside the first (RFC 8305 section 5).
NEXT_ADDRESS_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Limits:
    """``connect_timeout_seconds`` bounds the wait for a connection, ``timeout_seconds`` the one for
    the response's headers once the request is out, ``idle_timeout_seconds`` the one between two
    pieces of the answer."""

    connect_timeout_seconds: float
    timeout_seconds: float
    idle_timeout_seconds: float
    connections: int


class Pool:
    """``url``: of the origin that every request goes to; its path is not used here. ``server``: its
    name in errors."""

    def __init__(self, url: str, limits: Limits, *, server: str = "the API") -> None:
        parts = urlsplit(url)
        self._server = server
        self._subject = server[:1].upper() + server[1:]
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
        self,
        method: str,
        target: bytes,
        headers: Headers,
        body: AsyncIterator[bytes] | bytes | None,
    ) -> Exchange:
        """Until the answer's headers have come. A body that is there whole leaves with the head.

        Raises `ExchangeError`.
        """
        parts = [method.encode("ascii"), b" ", target, self._host_line]
        is_chunked = body is not None
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
            if name == b"content-length":
                is_chunked = False
        if isinstance(body, bytes):
            parts.append(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            body = None
        else:
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
        except Unreachable as error:
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
            if (
                connection.is_open
                and connection.free_since > oldest
                and not connection.is_readable()
            ):
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
                count = self._limits.connections
                text = (
                    f"All {count} connections to {self._server} have been in use for {seconds:g} s."
                )
                raise NoConnectionFree(text) from None
            raise
        if connection is not None and connection.is_open:
            return connection
        if connection is not None:
            self._opened += 1
        return await self._open()

    async def _open(self) -> Connection:
        """In a place that is counted already."""
        loop = asyncio.get_running_loop()
        connection = Connection(loop, self._on_free, self._on_lost, self._subject)
        seconds = self._limits.connect_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._connect(loop, connection)
        except BaseException as error:
            if connection.was_made:
                connection.abort()  # `_on_lost` gives its place.
            else:
                self._give_place()
            if isinstance(error, TimeoutError):
                text = f"{self._subject} does not accept connections within {seconds:g} s."
                raise Unreachable(text, was_sent=False) from error
            if isinstance(error, OSError):
                text = f"{self._subject} can't be reached: {_reason(error)}."
                raise Unreachable(text, was_sent=False) from error
            raise
        self._connections.add(connection)
        if self._sweeping is None:
            self._sweep_later()
        return connection

    async def _connect(self, loop: asyncio.AbstractEventLoop, connection: Connection) -> None:
        addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        line = await start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS)
        try:
            await loop.create_connection(
                lambda: connection,
                sock=line,
                ssl=self._tls(),
                server_hostname=self._host if self._is_tls else None,
            )
        except BaseException:
            line.close()
            raise

    def _tls(self) -> ssl.SSLContext | None:
        if self._is_tls and self._context is None:
            self._context = client_context("http/1.1")
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

    def _too_late(self, exchange: Exchange) -> TimedOut:
        if exchange.has_answered:
            seconds = self._limits.idle_timeout_seconds
            return TimedOut(f"{self._subject}'s answer fell silent for {seconds:g} s.")
        seconds = self._limits.timeout_seconds
        return TimedOut(f"{self._subject} sent no response headers within {seconds:g} s.")


def _reason(error: OSError) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate proves nothing ({error.verify_message})"
        case socket.gaierror():
            return "its name leads to no address"
        case _:
            return type(error).__name__
