"""Answers HEAD as GET, without the body (RFC 9110 section 9.3.2)."""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A GET of these begins or ends a sign-in, spends a state or gives out a token. HEAD must change
# nothing (RFC 9110 section 9.2.1): link previews use it.
_NOT_FOR_LOOKING = frozenset({"/auth", "/callback", "/login/oidc/callback"})
_PREFIXES_NOT_FOR_LOOKING = ("/token/", "/forward-auth/", "/proxy/")


def has_head(path: str) -> bool:
    """Whether HEAD is answered wherever GET is."""
    return path not in _NOT_FOR_LOOKING and not path.startswith(_PREFIXES_NOT_FOR_LOOKING)


class HeadRequests:
    """An ASGI wrapper: the routes see GET, and the server, which sees HEAD, writes no body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD" or not has_head(scope["path"]):
            await self._app(scope, receive, send)
            return
        is_over = False

        async def send_head(message: Message) -> None:
            nonlocal is_over
            if is_over:
                return
            if message["type"] == "http.response.body":
                # The first piece ends the answer, since a stream may never end.
                is_over = True
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        as_get: dict[str, Any] = {**scope, "method": "GET"}
        try:
            await self._app(as_get, receive, send_head)
        finally:
            if "route" in as_get:
                # The wrapper outside counts requests by route.
                scope["route"] = as_get["route"]
