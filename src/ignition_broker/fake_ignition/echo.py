"""ANY /echo: tells a client what arrived of its request, byte for byte."""

import hashlib

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

MAX_TEXT_BYTES = 64 * 1024


class Echo:
    """An ASGI app, since Starlette would hand a plain function one GET request alone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the request; its body is hashed as it comes in and never held whole."""
        digest, size, kept = hashlib.sha256(), 0, bytearray()
        async for chunk in Request(scope, receive).stream():
            digest.update(chunk)
            size += len(chunk)
            if size < MAX_TEXT_BYTES:
                kept += chunk
        answer = JSONResponse(
            {
                "method": scope["method"],
                "path": scope["raw_path"].decode("latin-1"),
                "query": scope["query_string"].decode("latin-1"),
                "http_version": scope["http_version"],
                "headers": [
                    [name.decode("latin-1"), value.decode("latin-1")]
                    for name, value in scope["headers"]
                ],
                "body_sha256": digest.hexdigest(),
                "body_size": size,
                "body_text": text_of(bytes(kept)) if size < MAX_TEXT_BYTES else None,
            }
        )
        await answer(scope, receive, send)


def text_of(body: bytes) -> str | None:
    """Decode a body that is UTF-8."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None
