"""Limits the bodies of the broker's own routes, and reads them whole before a route sees them."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ignition_broker.web.errors import BodyTooLarge, BodyTooSlow, problem_for

LARGEST_BODY_BYTES = 64 * 1024
BODY_SECONDS = 30.0
"""For a whole body. One that is so small comes at once, unless its caller wants to hold the
connection."""


async def whole_body(receive: Receive, largest_bytes: int = LARGEST_BODY_BYTES) -> bytes | None:
    """The body; None where the caller disconnected before its end.

    Raises `BodyTooLarge` for more than ``largest_bytes``, `BodyTooSlow` after `BODY_SECONDS`.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _whole_body(receive, largest_bytes)
    except TimeoutError:
        raise BodyTooSlow(f"The body did not come within {BODY_SECONDS:.0f} s.") from None


async def _whole_body(receive: Receive, largest_bytes: int) -> bytes | None:
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > largest_bytes:
            raise BodyTooLarge(f"The body is larger than {largest_bytes} bytes.")
        if not message.get("more_body", False):
            return body


class BodyLimit:
    """An ASGI wrapper. It reads the body ahead of FastAPI, which would answer a caller who
    disconnects amid its body as if the body were malformed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        try:
            body = await whole_body(receive)
        except (BodyTooLarge, BodyTooSlow) as error:
            await problem_for(error, scope["state"]["request_id"])(scope, receive, send)
            return
        if body is None:
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_whole() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, receive_whole, send)


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )
