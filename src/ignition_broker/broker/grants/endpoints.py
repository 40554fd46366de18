"""Ignition's OAuth endpoints, as they are asked: one request, one answer, read whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote, urlsplit

from ignition_broker import __version__
from ignition_broker.oauth.requests import OAuthRequest
from ignition_broker.outbound.content_coding import decoded
from ignition_broker.outbound.egress import Egress
from ignition_broker.outbound.errors import ExchangeError, NoConnectionFree
from ignition_broker.outbound.exchange import Exchange, Headers
from ignition_broker.outbound.http1_pool import Limits, Pool
from ignition_broker.outbound.places import NoPlaceFree, Places

LARGEST_ANSWER_BYTES = 1 << 20
CONNECTIONS = 100
LATE_CONNECTIONS = 400
"""Beside those, for requests that go on without an answer when nobody waits any more."""
# What RFC 3986 lets stand in a path and a query; a '%' begins what is encoded already.
_AS_IT_IS = "%/:@!$&'()*+,;=~"


@dataclass(frozen=True, slots=True)
class Answer:
    """``headers``: names in lower case.

    ``flaw`` says why ``body`` may not be what the server meant to send: a content coding that
    can't be undone, or too many bytes. ``broke_off`` is the error that ended it before its end;
    status and headers count nevertheless.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    flaw: str | None = None
    broke_off: ExchangeError | None = None


class Endpoints(Protocol):
    async def post(
        self, request: OAuthRequest, *, may_send: Callable[[], bool] | None = None
    ) -> Answer:
        """``may_send`` is asked right before the request goes out.

        Raises `outbound.errors.ExchangeError` where not even a status came; follows no redirect,
        and sends nothing twice.
        """
        ...


class HttpEndpoints:
    """``timeout_seconds``: after so long a request counts as late, and makes room for others; at
    most two thirds of it pass until there is a connection, so that it is known what was not sent.
    The answer is waited for without an end: whoever asks cancels."""

    def __init__(self, *, timeout_seconds: float, egress: Egress | None = None) -> None:
        self._egress = egress or Egress()
        self._limits = Limits(
            connect_timeout_seconds=timeout_seconds / 3,
            timeout_seconds=math.inf,
            idle_timeout_seconds=math.inf,
            connections=CONNECTIONS + LATE_CONNECTIONS,
            idle_per_tenant=0,
        )
        self._places = Places(
            prompt=CONNECTIONS, late=LATE_CONNECTIONS, prompt_seconds=timeout_seconds
        )
        self._pools: dict[str, Pool] = {}
        self._targets: dict[str, tuple[Pool, bytes]] = {}

    @property
    def late_requests(self) -> int:
        """How many go on although nobody waits for them any more."""
        return self._places.late_taken

    async def post(
        self, request: OAuthRequest, *, may_send: Callable[[], bool] | None = None
    ) -> Answer:
        wait_seconds = self._limits.connect_timeout_seconds
        try:
            async with self._places.place(wait_seconds=wait_seconds):
                return await self._post(request, may_send)
        except NoPlaceFree:
            text = (
                f"All {CONNECTIONS} connections to Ignition have been in use "
                f"for {wait_seconds:g} s."
            )
            raise NoConnectionFree(text) from None

    async def _post(self, request: OAuthRequest, may_send: Callable[[], bool] | None) -> Answer:
        pool, target = self._targets.get(request.url) or self._target(request.url)
        headers: Headers = [
            (b"User-Agent", f"ignition-broker/{__version__}".encode("ascii")),
            (b"Accept-Encoding", b"identity"),
            (b"Connection", b"close"),
        ]
        for name, value in request.headers.items():
            headers.append((name.encode("ascii"), value.encode("ascii")))
        # On a connection of its own: what another tenant's answer left behind would be taken for
        # this one's token.
        exchange = await pool.send(None, "POST", target, headers, request.body, may_send=may_send)
        try:
            body, flaw, broke_off = await _received(exchange)
        finally:
            exchange.close()
        received = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in exchange.headers
        }
        plain, undecoded = decoded(
            body, received.get("content-encoding", ""), limit_bytes=LARGEST_ANSWER_BYTES
        )
        return Answer(exchange.status, received, plain, flaw or undecoded, broke_off)

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()

    def _target(self, url: str) -> tuple[Pool, bytes]:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if origin not in self._pools:
            self._pools[origin] = Pool(origin, self._limits, egress=self._egress, server="Ignition")
        target = quote(parts.path or "/", safe=_AS_IT_IS)
        if parts.query:
            target += "?" + quote(parts.query, safe=_AS_IT_IS + "?")
        self._targets[url] = self._pools[origin], target.encode("ascii")
        return self._targets[url]


async def _received(exchange: Exchange) -> tuple[bytes, str | None, ExchangeError | None]:
    """What came of the body, what is wrong with it, and what ended it early."""
    body = b""
    try:
        while piece := await exchange.read():
            body += piece
            if len(body) > LARGEST_ANSWER_BYTES:
                return body[:LARGEST_ANSWER_BYTES], "it is larger than 1 MiB", None
    except ExchangeError as error:
        return body, None, error
    return body, None, None
