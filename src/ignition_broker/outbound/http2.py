"""The API over HTTP/2 where it speaks it, by httpcore's pool behind the same seam; else over
HTTP/1.1, by `outbound`.

For APIs that are reached by HTTP/2 alone, or over one connection: this is several times slower than
`outbound`, since all of the protocol is Python.

Tenants share an HTTP/2 connection: each frame names its stream, and a stream is one request's alone
(RFC 9113 section 5.1.1), so that what comes late or unasked is not taken for another's answer.
HTTP/1.1 has no such names, and httpcore's pool would share those connections too, so it is kept to
HTTP/2.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpcore

from ignition_broker.outbound.egress import Egress
from ignition_broker.outbound.errors import (
    BodyBrokeOff,
    ExchangeError,
    NoConnectionFree,
    TimedOut,
    Unreachable,
)
from ignition_broker.outbound.exchange import Headers
from ignition_broker.outbound.http1_pool import Pool
from ignition_broker.outbound.http2_connecting import ChoseHttp1, Http2Alone
from ignition_broker.outbound.limits import Limits
from ignition_broker.outbound.upstream import UpstreamAnswer
from ignition_broker.rate_limits import LIMIT_HEADERS
from ignition_broker.system_errors import shortage_or_name

KEEP_ALIVE_SECONDS = 4.0
# For how long an API that chose HTTP/1.1 is not asked again.
HTTP1_SECONDS = 60.0
# RFC 9110 sections 5.1 and 5.5. Over HTTP/1.1 llhttp lets nothing else through; in HTTP/2's frames
# any bytes may come (RFC 9113 section 8.2.1), and a line break would begin another header.
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


class Http2Answer:
    def __init__(self, response: httpcore.Response) -> None:
        self.status = response.status
        self.headers = _sound(response.headers)
        self.tells_limit = any(name in LIMIT_HEADERS for name, _value in self.headers)
        self.is_whole = False
        self._response = response
        self._pieces = response.aiter_stream()

    async def read(self) -> bytes:
        try:
            async for piece in self._pieces:
                if piece:
                    return piece
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise _translated(error, "The API's answer broke off") from error
        self.is_whole = True
        return b""

    async def aclose(self) -> None:
        await self._response.aclose()


def _sound(received: Headers) -> Headers:
    """With names in lower case. Raises `Unreachable` for what is no header of HTTP."""
    headers: Headers = []
    lengths = set()
    for name, value in received:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise Unreachable("The API's answer has a header that is none.")
        lowered = name.lower()
        if lowered == b"content-length":
            lengths.add(value)
        headers.append((lowered, value))
    if len(lengths) > 1 or not all(length.isdigit() for length in lengths):
        raise Unreachable("The API's answer has no proper Content-Length.")
    return headers


class Http2Upstream:
    """``api_url``: the origin that every request goes to; its path is not used here. ``egress``:
    the way there."""

    def __init__(self, api_url: str, limits: Limits, egress: Egress | None = None) -> None:
        egress = egress or Egress()
        parts = urlsplit(api_url)
        self._scheme = parts.scheme.encode("ascii")
        self._host = (parts.hostname or "").encode("idna")
        self._port = parts.port
        self._authority = parts.netloc.encode("idna")
        self._limits = limits
        proxy = egress.proxies.leading_to(parts.scheme, parts.hostname or "", parts.port or 443)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=egress.tls("h2", "http/1.1"),
            max_connections=limits.connections,
            keepalive_expiry=KEEP_ALIVE_SECONDS,
            http2=True,
            network_backend=Http2Alone(proxy),
        )
        self._http1 = Pool(api_url, limits, egress=egress)
        # Without TLS there is no ALPN to agree on HTTP/2 by (RFC 9113 section 3.2).
        self._http1_until = 0.0 if parts.scheme == "https" else math.inf

    async def send(
        self,
        tenant: str,
        method: str,
        target: bytes,
        headers: Headers,
        body: AsyncIterator[bytes] | None,
    ) -> UpstreamAnswer:
        now = asyncio.get_running_loop().time()
        if now >= self._http1_until:
            try:
                return await self._send_http2(method, target, headers, body)
            except ChoseHttp1:
                # Nothing has been sent yet.
                self._http1_until = now + HTTP1_SECONDS
        return await self._http1.send(tenant, method, target, headers, body)

    async def _send_http2(
        self, method: str, target: bytes, headers: Headers, body: AsyncIterator[bytes] | None
    ) -> Http2Answer:
        url = httpcore.URL(scheme=self._scheme, host=self._host, port=self._port, target=target)
        limits = self._limits
        seconds: dict[str, Any] = {
            "connect": limits.connect_timeout_seconds,
            "pool": limits.connect_timeout_seconds,
            "read": limits.timeout_seconds,
            "write": limits.timeout_seconds,
        }
        outgoing = [(b"Host", self._authority), *headers]
        if body is not None and not any(name == b"content-length" for name, _ in headers):
            outgoing.append((b"Transfer-Encoding", b"chunked"))
        request = httpcore.Request(
            method, url, headers=outgoing, content=body, extensions={"timeout": seconds}
        )
        try:
            response = await self._pool.handle_async_request(request)
        except ValueError:
            # httpcore makes a number of whatever stands there.
            raise Unreachable("The API's answer has no HTTP status.") from None
        except BodyBrokeOff:
            raise Unreachable("The request's body broke off.") from None
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise _translated(error, "The API can't be reached") from error
        # Read anew at every wait: from here on it bounds the silence between two pieces.
        seconds["read"] = limits.idle_timeout_seconds
        try:
            return Http2Answer(response)
        except Unreachable:
            await response.aclose()
            raise

    async def aclose(self) -> None:
        await self._pool.aclose()
        await self._http1.aclose()


def _translated(error: Exception, what: str) -> ExchangeError:
    if isinstance(error, httpcore.PoolTimeout):
        return NoConnectionFree("All connections to the API have been in use for too long.")
    is_connecting = isinstance(error, httpcore.ConnectError | httpcore.ConnectTimeout)
    if isinstance(error, httpcore.TimeoutException) and not is_connecting:
        return TimedOut("The API was silent for too long.")
    detail = f"{what}: {shortage_or_name(error)}."
    return Unreachable(detail, was_sent=not is_connecting)
