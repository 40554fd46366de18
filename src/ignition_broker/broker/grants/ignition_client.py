"""Sends OAuth requests to Ignition's endpoints: one request, one answer, read whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import httpx

from ignition_broker.oauth.requests import OAuthRequest
from ignition_broker.outbound.answers import Answer, whole_answer
from ignition_broker.outbound.client import MAY_SEND, ClientLimits, PoolTransport, http_client
from ignition_broker.outbound.egress import Egress

LARGEST_ANSWER_BYTES = 1 << 20
CONNECTIONS = 100
LATE_CONNECTIONS = 400
"""Beside those, for requests that go on without an answer when nobody waits any more."""


class Endpoints(Protocol):
    async def post(
        self, request: OAuthRequest, *, may_send: Callable[[], bool] | None = None
    ) -> Answer:
        """``may_send`` is asked right before the request goes out.

        Raises `outbound.errors.ExchangeError` where not even a status came; follows no redirect,
        and sends nothing twice.
        """
        ...


class IgnitionClient:
    """``timeout_seconds``: after so long a request counts as late, and makes room for others; at
    most two thirds of it pass until there is a connection, so that it is known what was not sent.
    The answer is waited for without an end: whoever asks cancels."""

    def __init__(self, *, timeout_seconds: float, egress: Egress | None = None) -> None:
        limits = ClientLimits(
            connections=CONNECTIONS,
            connect_timeout_seconds=timeout_seconds / 3,
            late_connections=LATE_CONNECTIONS,
            late_after_seconds=timeout_seconds,
        )
        self._transport = PoolTransport(limits, egress=egress, server="Ignition")
        self._http = http_client(self._transport)
        # There are two, and to parse one takes 40 us.
        self._urls: dict[str, httpx.URL] = {}

    @property
    def late_requests(self) -> int:
        """How many go on although nobody waits for them any more."""
        return self._transport.late_requests

    async def post(
        self, request: OAuthRequest, *, may_send: Callable[[], bool] | None = None
    ) -> Answer:
        url = self._urls.get(request.url)
        if url is None:
            url = self._urls.setdefault(request.url, httpx.URL(request.url))
        post = self._http.build_request(
            "POST",
            url,
            headers=dict(request.headers),
            content=request.body,
            extensions={MAY_SEND: may_send},
        )
        return await whole_answer(self._http, post, limit_bytes=LARGEST_ANSWER_BYTES)

    async def aclose(self) -> None:
        await self._http.aclose()
