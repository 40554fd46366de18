"""A server over HTTP/1.1: a pool of kept connections, their limits and their clock.

A kept connection is used again for the same tenant alone (`outbound.idle_connections`).

Why not a library's client: docs/decisions/0002-proxy-client.md.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

from ignition_broker.outbound.dialing import Dialer, reason
from ignition_broker.outbound.egress import Egress
from ignition_broker.outbound.errors import (
    NoConnectionFree,
    RequestWithdrawn,
    Unreachable,
)
from ignition_broker.outbound.exchange import Exchange, Headers
from ignition_broker.outbound.http1_connection import Connection
from ignition_broker.outbound.idle_connections import IdleConnections
from ignition_broker.outbound.limits import Limits
from ignition_broker.outbound.tunnel import AUTHENTICATION_REQUIRED, proxy_authorization, refusal

# Below what servers keep idle connections for (uvicorn: 5 s), lest a call meet a closing one.
KEEP_ALIVE_SECONDS = 4.0
# One look at all deadlines costs less than a timer a request.
LONGEST_SWEEP_SECONDS = 0.25

# Whose request waits, and what it waits for: a connection of the same tenant's, or a place.
_Waiting = tuple[str | None, asyncio.Future[Connection | None]]


class Pool:
    """``url``: of the origin that every request goes to; its path is not used here. ``egress``: the
    way there; by default direct, trusting the machine's authorities. ``server``: its name in
    errors."""

    def __init__(
        self, url: str, limits: Limits, *, egress: Egress | None = None, server: str = "the API"
    ) -> None:
        parts = urlsplit(url)
        self._server = server
        self._subject = server[:1].upper() + server[1:]
        is_tls = parts.scheme == "https"
        port = parts.port or (443 if is_tls else 80)
        self._dialer = Dialer(parts.hostname or "", port, is_tls=is_tls, egress=egress or Egress())
        host = parts.netloc.encode("idna")
        self._before_target, self._after_target = b" ", b" HTTP/1.1\r\nHost: " + host + b"\r\n"
        # Without TLS there is no tunnel: the proxy is sent the request (RFC 9112 section 3.2.2).
        self._forwarding = None if is_tls else self._dialer.proxy
        if self._forwarding is not None:
            self._before_target += b"http://" + host
            self._after_target += proxy_authorization(self._forwarding)
        self._limits = limits
        self._idle = IdleConnections(limits.idle_per_tenant)
        self._waiting: deque[_Waiting] = deque()
        # Places taken: one for each of `_connections` and for each whose place is being passed on.
        self._opened = 0
        self._connections: set[Connection] = set()
        # Set with the first connection: `get_running_loop` costs a system call in Python 3.11.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._sweep_seconds = min(
            LONGEST_SWEEP_SECONDS, limits.timeout_seconds / 8, limits.idle_timeout_seconds / 8
        )

    async def send(
        self,
        tenant: str | None,
        method: str,
        target: bytes,
        headers: Headers,
        body: AsyncIterator[bytes] | bytes | None,
        *,
        may_send: Callable[[], bool] | None = None,
    ) -> Exchange:
        """Until the answer's headers have come. A body that is there whole leaves with the head.
        ``tenant``: whose later requests may use the connection again; None: no request may.
        ``may_send`` is asked once there is a connection, right before the request goes out.

        Raises `ExchangeError`.
        """
        parts = [method.encode("ascii"), self._before_target, target, self._after_target]
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
        connection = None
        if tenant is not None and self._loop is not None:
            connection = self._idle.take(tenant, self._loop.time() - KEEP_ALIVE_SECONDS)
        if connection is None:
            connection = await self._when_one_is_free(tenant)
        if may_send is not None and not may_send():
            connection.abort()
            raise RequestWithdrawn("The request was not to be sent any more.")
        exchange = connection.request(
            tenant,
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
                # If one idle connection was dead, close all idle ones.
                self._idle.close(idle_since=math.inf)
            raise
        except BaseException:
            exchange.close()
            raise
        if self._forwarding is not None and exchange.status == AUTHENTICATION_REQUIRED:
            exchange.close()
            raise refusal(self._forwarding, exchange.status)
        return exchange

    async def aclose(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in list(self._connections):
            if connection.was_made:
                connection.abort()

    async def _when_one_is_free(self, tenant: str | None) -> Connection:
        if self._opened < self._limits.connections:
            self._opened += 1
            return await self._open()
        oldest = self._idle.take_oldest()
        if oldest is not None:
            self._connections.discard(oldest)
            oldest.discard()
            return await self._open()
        seconds = self._limits.connect_timeout_seconds
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((tenant, turn))
        try:
            async with asyncio.timeout(seconds):
                connection = await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._hand_back(turn.result())
            if isinstance(error, TimeoutError):
                count = self._limits.connections
                text = (
                    f"All {count} connections to {self._server} have been in use for {seconds:g} s."
                )
                raise NoConnectionFree(text) from None
            raise
        if connection is None:
            return await self._open()
        if connection.is_fit():
            self._connections.add(connection)
            return connection
        connection.discard()
        return await self._open()

    async def _open(self) -> Connection:
        """In a place that is counted already."""
        loop = self._loop = asyncio.get_running_loop()
        connection = Connection(loop, self._on_free, self._on_lost, self._subject)
        self._connections.add(connection)
        seconds = self._limits.connect_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._dialer.dial(connection)
        except BaseException as error:
            if connection.was_made:
                connection.abort()  # `_on_lost` gives its place.
            else:
                self._on_lost(connection)
            if isinstance(error, TimeoutError):
                way = self._dialer.way
                text = f"{self._subject} does not accept connections within {seconds:g} s{way}."
                raise Unreachable(text, was_sent=False) from error
            if isinstance(error, OSError):
                text = f"{self._subject} can't be reached{self._dialer.way}: {reason(error)}."
                raise Unreachable(text, was_sent=False) from error
            raise
        if self._sweeping is None:
            self._sweep_later()
        return connection

    def _on_free(self, connection: Connection) -> None:
        """First come, first served, whoever's it was: its place passes on, and the connection
        itself only to the same tenant."""
        while self._waiting:
            tenant, turn = self._waiting.popleft()
            if turn.done():
                continue
            self._connections.discard(connection)
            if tenant is not None and tenant == connection.tenant:
                turn.set_result(connection)
            else:
                connection.discard()
                turn.set_result(None)
            return
        if connection.tenant is not None:
            self._idle.put(connection, connection.tenant)

    def _hand_back(self, connection: Connection | None) -> None:
        """What was meant for a caller who has left."""
        if connection is None or not connection.is_open:
            self._give_place()
            return
        self._connections.add(connection)
        self._on_free(connection)

    def _on_lost(self, connection: Connection) -> None:
        self._idle.remove(connection)
        if connection in self._connections:
            self._connections.discard(connection)
            self._give_place()

    def _give_place(self) -> None:
        while self._waiting:
            _tenant, turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._opened -= 1

    def _sweep_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(self._sweep_seconds, self._sweep)

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        for exchange in [each.exchange for each in self._connections]:
            if exchange is not None and exchange.deadline < now:
                has_answered = exchange.has_answered
                exchange.fail(self._limits.exceeded(self._subject, has_answered=has_answered))
        self._idle.close(idle_since=now - KEEP_ALIVE_SECONDS)
        self._sweeping = None
        if self._opened:
            self._sweep_later()
