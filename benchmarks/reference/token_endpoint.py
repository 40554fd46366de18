"""A provider that can do one thing fast: rotate refresh tokens, and count how often each was used.

The fake Ignition knows only the grants that it gave itself.
Here any refresh token is good, once.
"""

from __future__ import annotations

import itertools
import json
import secrets
from urllib.parse import parse_qs

HEADERS = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]

_serial = itertools.count()
_spent: set[str] = set()
_reused = 0


async def app(scope, receive, send):
    if scope["path"] == "/counts":
        await _answer(send, 200, {"used": len(_spent), "used_again": _reused})
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await _answer(send, *_rotated(parse_qs(body.decode())["refresh_token"][0]))


def _rotated(refresh_token: str) -> tuple[int, dict[str, object]]:
    global _reused
    if refresh_token in _spent:
        _reused += 1
        return 400, {"error": "invalid_grant", "error_description": "It was used before."}
    _spent.add(refresh_token)
    return 200, {
        "access_token": secrets.token_urlsafe(32),
        "refresh_token": f"{secrets.token_urlsafe(24)}{next(_serial)}",
        "token_type": "Bearer",
        "expires_in": 36_000,
        "scope": "read write",
    }


async def _answer(send, status: int, fields: dict[str, object]) -> None:
    body = json.dumps(fields).encode()
    headers = [*HEADERS, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
