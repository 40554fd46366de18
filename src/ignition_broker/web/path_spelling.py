"""Refuses paths with needless percent escapes.

A reverse proxy may block or route by the path as it was sent, while FastAPI matches the decoded
one: `/%66orward-auth/acme` would pass a rule against `/forward-auth/` (RFC 3986 section 6.2.2.2).
"""

from __future__ import annotations

import re
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from ignition_broker.problems import PATH_ENCODED
from ignition_broker.web.errors import problem

# Letters, digits, '-', '.', '_', '~'; and '/', '\\' and '%', which would make another path of it.
_NEEDLESS: Final = re.compile(
    rb"%(?:2[5dDeEfF]|3[0-9]|4[1-9a-fA-F]|5[0-9aAcCfF]|6[1-9a-fA-F]|7[0-9aAeE])"
)
# CPython 3.11 looks for bytes in bytes by way of an error that it drops: ten times slower.
PERCENT: Final = ord("%")
ADVICE: Final = "Write letters, digits, '-', '.', '_', '~' and '/' in the path as they are."


def is_needlessly_encoded(raw_path: bytes) -> bool:
    """Whether the path encodes a character that has no need of it, or one that would change it."""
    return PERCENT in raw_path and _NEEDLESS.search(raw_path) is not None


class PlainPaths:
    """An ASGI wrapper around all routes but the proxy's, whose paths are the API's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_needlessly_encoded(scope["raw_path"]):
            await self._app(scope, receive, send)
            return
        answer = problem(PATH_ENCODED, ADVICE, request_id=scope["state"]["request_id"])
        await answer(scope, receive, send)
