"""Turns queued faults into behaviour: each is a function from an ASGI app to an ASGI app."""

import asyncio
import json
from dataclasses import dataclass

from pydantic import JsonValue
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ignition_broker.fake_ignition.events import LateAnswerEnded
from ignition_broker.fake_ignition.faults import FAULT_KEY, PRESENTED_KEY, Endpoint, Fault
from ignition_broker.fake_ignition.provider import Provider

API_PREFIXES = ("/v1/", "/echo/", "/external/api/v1/")
BODILESS = frozenset({204, 205, 304})


class ConnectionCut(Exception):
    """Raised in place of cutting the connection, where the server shows no transport."""


@dataclass(frozen=True)
class FaultInjection:
    """Counts requests, and applies the next queued fault to each.

    It stands outside of Starlette's own middleware, whose ``send`` would hide the transport.
    """

    app: ASGIApp
    provider: Provider

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = endpoint_of(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None:
            await self.app(scope, receive, send)
            return
        count_arrival(self.provider, endpoint)
        fault = self.provider.faults.take(endpoint)
        if fault is None:
            await self.app(scope, receive, send)
            return
        self.provider.counters.faults_injected += 1
        if fault.drops_answer:
            self.provider.counters.answers_dropped += 1
        scope[FAULT_KEY] = fault
        await with_fault(self.app, fault)(scope, receive, send)
        if fault.delays_answer and PRESENTED_KEY in scope:
            ended = LateAnswerEnded(self.provider.clock(), scope[PRESENTED_KEY])
            self.provider.ledger.record(ended)


def endpoint_of(path: str) -> Endpoint | None:
    """Name the endpoint that a path belongs to, where faults can be asked for."""
    match path:
        case "/oauth/token" | "/oauth2/token":
            return "token"
        case "/oauth/revoke" | "/oauth2/revoke":
            return "revoke"
        case "/oauth/authorize" | "/oauth2/authorize":
            return "authorize"
        case "/echo":
            return "api"
    return "api" if path.startswith(API_PREFIXES) else None


def count_arrival(provider: Provider, endpoint: Endpoint) -> None:
    """Count a request, whatever comes of it."""
    match endpoint:
        case "token":
            provider.counters.token_requests += 1
        case "revoke":
            provider.counters.revoke_requests += 1
        case "authorize":
            provider.counters.authorize_requests += 1
        case "api":
            provider.counters.api_requests += 1


def with_fault(app: ASGIApp, fault: Fault) -> ASGIApp:
    """Compose what the fault asks for, innermost first."""
    if fault.drop == "before":
        app = doing_nothing
    elif fault.replaces_answer:
        app = carrying_out_first(app, answering(fault)) if fault.carry_out else answering(fault)
    if fault.mutate is not None:
        app = merging(app, fault.mutate)
    if fault.headers:
        app = adding_headers(app, fault.headers)
    if fault.delay_seconds:
        app = delaying(app, fault.delay_seconds)
    if fault.drip_seconds:
        app = dripping(app, fault.drip_seconds)
    if fault.drop == "during":
        return cutting_during(app)
    return app if fault.drop is None else cutting_after(app)


async def doing_nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Neither carry the request out nor answer it."""


def answering(fault: Fault) -> ASGIApp:
    """Answer at once with what the fault says."""
    status = 200 if fault.status is None else fault.status
    body = "" if fault.body is None or status in BODILESS else fault.body
    return Response(body, status, headers={"content-type": fault.content_type})


def carrying_out_first(app: ASGIApp, answer: ASGIApp) -> ASGIApp:
    """Carry the request out, throw its own answer away and give another."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        await collected(app, scope, receive)
        await answer(scope, receive, send)

    return answered


def merging(app: ASGIApp, changes: dict[str, JsonValue]) -> ASGIApp:
    """Change members of the answer's JSON object; leave any other answer alone."""

    async def merged(scope: Scope, receive: Receive, send: Send) -> None:
        start, body = await captured(app, scope, receive)
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if isinstance(answer, dict):
            removed = {name for name, value in changes.items() if value is None}
            kept = (answer | changes).items()
            body = json.dumps({name: value for name, value in kept if name not in removed}).encode()
            MutableHeaders(raw=start["headers"])["content-length"] = str(len(body))
        await send_all(send, start, body)

    return merged


def adding_headers(app: ASGIApp, headers: tuple[tuple[str, str], ...]) -> ASGIApp:
    """Set headers on the answer, over its own."""

    async def added(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(raw=message["headers"]).update(dict(headers))
            await send(message)

        await app(scope, receive, send_with_headers)

    return added


def delaying(app: ASGIApp, seconds: float) -> ASGIApp:
    """Carry the request out at once and hold its answer back."""

    async def delayed(scope: Scope, receive: Receive, send: Send) -> None:
        messages = await collected(app, scope, receive)
        await asyncio.sleep(seconds)
        for message in messages:
            await send(message)

    return delayed


def dripping(app: ASGIApp, seconds: float) -> ASGIApp:
    """Send the answer's head, then its body a byte at a time."""

    async def dripped(scope: Scope, receive: Receive, send: Send) -> None:
        start, body = await captured(app, scope, receive)
        await send(start)
        for place in range(len(body)):
            await asyncio.sleep(seconds)
            byte = body[place : place + 1]
            await send({"type": "http.response.body", "body": byte, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return dripped


def cutting_after(app: ASGIApp) -> ASGIApp:
    """Carry the request out and cut the connection with no byte of the answer sent."""

    async def cut(scope: Scope, receive: Receive, send: Send) -> None:
        await collected(app, scope, receive)
        transport_of(send).abort()
        await disconnection(receive)

    return cut


def cutting_during(app: ASGIApp) -> ASGIApp:
    """Send the answer's head and half of its body, then cut the connection."""

    async def cut(scope: Scope, receive: Receive, send: Send) -> None:
        start, body = await captured(app, scope, receive)
        half = body[: len(body) // 2]
        await send(start)
        await send({"type": "http.response.body", "body": half, "more_body": True})
        # Closing sends what is buffered first; aborting would lose that half too.
        transport_of(send).close()
        await disconnection(receive)

    return cut


def transport_of(send: Send) -> asyncio.Transport:
    """Find the connection behind a ``send``.

    ASGI has no word for cutting it; uvicorn's ``send`` is a method of an object that has it.
    """
    transport: asyncio.Transport | None = getattr(
        getattr(send, "__self__", None), "transport", None
    )
    if transport is None:
        raise ConnectionCut
    return transport


async def disconnection(receive: Receive) -> None:
    """Wait until the server has noticed; it would take an earlier return for a bug and say so."""
    while (await receive())["type"] != "http.disconnect":
        continue


async def collected(app: ASGIApp, scope: Scope, receive: Receive) -> list[Message]:
    """Run the app and keep its messages."""
    messages: list[Message] = []

    async def keep(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, keep)
    return messages


async def captured(app: ASGIApp, scope: Scope, receive: Receive) -> tuple[Message, bytes]:
    """Run the app and return its answer's head and whole body."""
    start, *chunks = await collected(app, scope, receive)
    return start, b"".join(chunk.get("body", b"") for chunk in chunks)


async def send_all(send: Send, start: Message, body: bytes) -> None:
    """Send an answer in one piece."""
    await send(start)
    await send({"type": "http.response.body", "body": body})
