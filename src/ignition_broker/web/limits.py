"""Bodies of the broker's own routes: small, read whole before a route sees them."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ignition_broker.web.errors import BodyTooLarge, problem_for

LARGEST_BODY_BYTES = 64 * 1024


class BodyLimit:
    """Pure ASGI. Read ahead of the framework, which would call a broken read a malformed body."""

    def __init__(self, app: ASGIApp, *, largest_bytes: int = LARGEST_BODY_BYTES) -> None:
        self._app = app
        self._largest = largest_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if len(body) > self._largest:
                error = BodyTooLarge(f"The body is larger than {self._largest} bytes.")
                answer = problem_for(error, scope["state"]["request_id"])
                # What is left of the body is not read, so the connection can't be used again.
                answer.headers["Connection"] = "close"
                await answer(scope, receive, send)
                return
            if not message.get("more_body", False):
                break
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def receive_whole() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, receive_whole, send)


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )
