"""Ignition's OAuth endpoints, as they are asked: one request, one answer, read whole."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote, urlsplit

from ignition_broker import __version__
from ignition_broker.oauth.requests import OAuthRequest
from ignition_broker.outbound.exchange import Exchange, Headers
from ignition_broker.outbound.pool import Limits, Pool

LARGEST_ANSWER_BYTES = 1 << 20
CONNECTIONS = 100
# What RFC 3986 lets stand in a path and a query; a '%' begins what is encoded already.
_AS_IT_IS = "%/:@!$&'()*+,;=~"


@dataclass(frozen=True, slots=True)
class Answer:
    """``headers``: names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class UnreadableAnswer(Exception):
    """It came, and can't be taken for what it is: the text says why."""


class Endpoints(Protocol):
    async def post(self, request: OAuthRequest) -> Answer:
        """Raises `outbound.errors.ExchangeError` or `UnreadableAnswer`; follows no redirect, and
        sends nothing twice."""
        ...


class HttpEndpoints:
    """``timeout_seconds``: what one request may take; whoever asks keeps to it. At most
    two thirds of it pass until there is a connection, so that it is known what was not sent."""

    def __init__(self, *, timeout_seconds: float) -> None:
        self._limits = Limits(
            connect_timeout_seconds=timeout_seconds / 3,
            timeout_seconds=timeout_seconds,
            idle_timeout_seconds=timeout_seconds,
            connections=CONNECTIONS,
        )
        self._pools: dict[str, Pool] = {}
        self._places: dict[str, tuple[Pool, bytes]] = {}

    async def post(self, request: OAuthRequest) -> Answer:
        pool, target = self._places.get(request.url) or self._place(request.url)
        headers: Headers = [
            (b"User-Agent", f"ignition-broker/{__version__}".encode("ascii")),
            (b"Accept-Encoding", b"identity"),
        ]
        for name, value in request.headers.items():
            headers.append((name.encode("ascii"), value.encode("ascii")))
        exchange = await pool.send("POST", target, headers, request.body)
        try:
            body = await _whole(exchange)
        finally:
            exchange.close()
        received = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in exchange.headers
        }
        body = _decoded(body, received.get("content-encoding", ""))
        return Answer(exchange.status, received, body)

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()

    def _place(self, url: str) -> tuple[Pool, bytes]:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if origin not in self._pools:
            self._pools[origin] = Pool(origin, self._limits, server="Ignition")
        target = quote(parts.path or "/", safe=_AS_IT_IS)
        if parts.query:
            target += "?" + quote(parts.query, safe=_AS_IT_IS + "?")
        self._places[url] = self._pools[origin], target.encode("ascii")
        return self._places[url]


async def _whole(exchange: Exchange) -> bytes:
    body = b""
    while piece := await exchange.read():
        body += piece
        if len(body) > LARGEST_ANSWER_BYTES:
            raise UnreadableAnswer("it is larger than 1 MiB")
    return body


def _decoded(body: bytes, coding: str) -> bytes:
    """Some compress unasked (RFC 9110 section 8.4.1)."""
    match coding.strip().lower():
        case "" | "identity":
            return body
        case "gzip" | "x-gzip" | "deflate":
            # 32: zlib's header or gzip's, whichever is there.
            inflating = zlib.decompressobj(zlib.MAX_WBITS | 32)
            try:
                plain = inflating.decompress(body, LARGEST_ANSWER_BYTES)
            except zlib.error:
                raise UnreadableAnswer(f"it is not the {coding} that it says it is") from None
            if inflating.unconsumed_tail or not inflating.eof:
                raise UnreadableAnswer("it is larger than 1 MiB, or cut off")
            return plain
        case other:
            raise UnreadableAnswer(f"its Content-Encoding {other!r} was not asked for")
