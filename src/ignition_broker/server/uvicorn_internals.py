"""What this package uses of uvicorn beyond its documented interface.

No other module imports a submodule of uvicorn. None of it is promised to stay, so `pyproject.toml`
bounds uvicorn's version, and `tests/unit/server/test_uvicorn_internals.py` names every field and
method and fails if one is gone: read that test first when a new version is to be allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

__all__ = [
    "STARTUP_FAILURE",
    "HttpToolsProtocol",
    "RequestResponseCycle",
    "ServerState",
    "answer_without_chunks",
    "make_protocol",
    "newest_request",
    "tell_that_caller_is_gone",
]


def newest_request(protocol: HttpToolsProtocol) -> RequestResponseCycle | None:
    """The request whose head was read last; None before the first, though uvicorn's annotation
    says that there always is one."""
    return protocol.cycle


def make_protocol(server: uvicorn.Server) -> asyncio.Protocol:
    """A protocol for one more connection, as ``server`` makes it for those that it accepts."""
    make: Any = server.config.http_protocol_class
    protocol: asyncio.Protocol = make(
        config=server.config, server_state=server.server_state, app_state=server.lifespan.state
    )
    return protocol


def tell_that_caller_is_gone(request: RequestResponseCycle) -> None:
    """The application receives ``http.disconnect``, and what it still sends is dropped."""
    request.disconnected = True
    request.message_event.set()


def answer_without_chunks(request: RequestResponseCycle) -> None:
    """For callers of another version than HTTP/1.1: where no length is known, the connection's end
    is the body's (RFC 9112 section 6.3). Nor do they wait for 100 (RFC 9110 section 10.1.1)."""
    send = request.send
    request.keep_alive = False
    request.waiting_for_100_continue = False
    is_ended_by_close = False

    async def send_without_chunks(message: Any) -> None:
        nonlocal is_ended_by_close
        if message["type"] == "http.response.start":
            is_ended_by_close = not _has_length(message.get("headers", ()))
            if is_ended_by_close:
                request.chunked_encoding = False
        elif is_ended_by_close:
            request.expected_content_length = len(message.get("body", b""))
        await send(message)

    request.send = send_without_chunks  # type: ignore[method-assign]


def _has_length(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() == b"content-length" for name, _value in headers)
