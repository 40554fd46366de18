"""Sends one notification, once, and says what came of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from ignition_broker.broker.notifications.bodies import body_of
from ignition_broker.broker.notifications.destinations import Destination
from ignition_broker.broker.notifications.signing import signed_headers
from ignition_broker.clock import Clock
from ignition_broker.outbound.client import (
    ClientLimits,
    PoolTransport,
    exchange_error,
    http_client,
)
from ignition_broker.outbound.egress import Egress
from ignition_broker.rate_limits import retry_after_seconds
from ignition_broker.storage.outbox import OutboxEvent

TIMEOUT_SECONDS: Final = 10.0
"""For the whole of one try, from the look-up of the name to the answer's headers."""
CONNECTIONS: Final = 100


@dataclass(frozen=True, slots=True)
class Taken:
    """The receiver has it. ``status``: of HTTP, where it speaks that."""

    status: int | None


@dataclass(frozen=True, slots=True)
class NotTaken:
    """To be tried again. ``retry_after_seconds``: what the receiver asked for."""

    status: int | None
    reason: str
    retry_after_seconds: float | None = None


SendResult = Taken | NotTaken


class HttpSender:
    """Posts JSON. It follows no redirect, and reads no answer's body: what a receiver says would
    otherwise be shown to whoever names its URL."""

    def __init__(self, egress: Egress, clock: Clock) -> None:
        """``egress``: guarded, since admins name the URLs."""
        limits = ClientLimits(connections=CONNECTIONS, connect_timeout_seconds=TIMEOUT_SECONDS)
        transport = PoolTransport(limits, egress=egress, server="the destination")
        self._client = http_client(transport)
        self._clock = clock

    async def send_event(self, destination: Destination, event: OutboxEvent) -> SendResult:
        """One signed event (Standard Webhooks)."""
        body = body_of(event)
        headers = signed_headers(destination.secrets, event.name, self._clock.now(), body)
        return await self._post(destination.target, body, headers)

    async def send_text(self, destination: Destination, lines: Sequence[str]) -> SendResult:
        """A message to a Slack-compatible webhook."""
        text = "\n".join(escaped(line) for line in lines)
        return await self._post(destination.target, json.dumps({"text": text}), {})

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _post(self, url: str, body: str, headers: dict[str, str]) -> SendResult:
        try:
            request = self._client.build_request(
                "POST",
                url,
                content=body.encode(),
                headers={**headers, "content-type": "application/json"},
            )
            async with asyncio.timeout(TIMEOUT_SECONDS):
                answer = await self._client.send(request, stream=True)
                await answer.aclose()
        except TimeoutError:
            return NotTaken(None, f"no answer within {TIMEOUT_SECONDS:g} s")
        except httpx.TransportError as error:
            return NotTaken(None, exchange_error(error).detail)
        except (httpx.InvalidURL, UnicodeError):
            return NotTaken(None, "its URL can't be used")
        status = answer.status_code
        if 200 <= status < 300:
            return Taken(status)
        if 300 <= status < 400:
            return NotTaken(status, f"it answered {status}; redirects are not followed")
        asked = None
        if status in {429, 503}:
            asked = retry_after_seconds(answer.headers.get("retry-after"), now=self._clock.now())
        return NotTaken(status, f"it answered {status}", asked)


def escaped(line: str) -> str:
    """Slack reads these three as markup."""
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
