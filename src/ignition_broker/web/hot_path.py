"""Tokens handed out by a pure ASGI app, ahead of FastAPI's router.

A service asks for a token before every call that it makes, so this route costs one look-up for
the key, one for the token and one body; routing, validation and dependencies would cost several
times that. `web.tokens` declares the same routes for the OpenAPI document alone.
"""

from __future__ import annotations

import json
import re
from datetime import UTC
from typing import Final
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

from ignition_broker.broker.access import Access
from ignition_broker.broker.errors import BrokerError, InvalidRequest
from ignition_broker.broker.issue import Issuer
from ignition_broker.clock import Clock
from ignition_broker.model import Actor, Caller, IssuedToken, is_tenant_id
from ignition_broker.model import Scope as KeyScope
from ignition_broker.web.callers import caller_of, check
from ignition_broker.web.errors import problem_for

DEFAULT_MIN_TTL_SECONDS: Final = 60
LONGEST_MIN_TTL_SECONDS: Final = 365 * 86_400
FORWARD_AUTH_MIN_TTL_SECONDS: Final = 5
TOKEN_ROUTE: Final = "/token/{tenant}"
REFRESH_ROUTE: Final = "/token/{tenant}/refresh"
FORWARD_AUTH_ROUTE: Final = "/forward-auth/{tenant}"

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_WHOLE_NUMBER = re.compile(r"[0-9]{1,8}")
_BAD_TENANT = (
    "tenant: must be 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit."
)
_BAD_MIN_TTL = f"min_ttl: must be a whole number of seconds from 0 to {LONGEST_MIN_TTL_SECONDS}."
_BAD_SHA256 = "rejected_token_sha256: must be a SHA-256 in hexadecimal, 64 characters."


class HotPath:
    """Passes on to ``app`` what is not its own, wrong methods included."""

    def __init__(self, app: ASGIApp, access: Access, issuer: Issuer, clock: Clock) -> None:
        self._app = app
        self._access = access
        self._issuer = issuer
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route, tenant = _routed(scope)
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route_path"] = route
        request_id: str = scope["state"]["request_id"]
        try:
            caller = await caller_of(scope, self._access)
            if not is_tenant_id(tenant):
                raise InvalidRequest(_BAD_TENANT)
            actor = Actor(caller.name, request_id)
            if route == TOKEN_ROUTE:
                check(caller, KeyScope.TOKEN, tenant)
                token = await self._issued(scope, tenant, actor)
            elif route == REFRESH_ROUTE:
                token = await self._refreshed(receive, tenant, caller, actor)
            else:
                check(caller, KeyScope.PROXY, tenant)
                token = await self._issued_for_proxy(scope, tenant, actor)
                await _send(send, b"", [(b"authorization", _bearer(token))])
                return
        except BrokerError as error:
            await problem_for(error, request_id)(scope, receive, send)
            return
        await _send(send, self._body(token), [(b"content-type", b"application/json")])

    async def _issued(self, scope: Scope, tenant: str, actor: Actor) -> IssuedToken:
        min_ttl = DEFAULT_MIN_TTL_SECONDS
        if scope["query_string"]:
            given = _query(scope).get("min_ttl")
            if given is not None:
                if not _WHOLE_NUMBER.fullmatch(given) or int(given) > LONGEST_MIN_TTL_SECONDS:
                    raise InvalidRequest(_BAD_MIN_TTL, tenant=tenant)
                min_ttl = int(given)
        return self._issuer.held(tenant, min_ttl) or await self._issuer.issue(
            tenant, min_ttl_seconds=min_ttl, actor=actor
        )

    async def _refreshed(
        self, receive: Receive, tenant: str, caller: Caller, actor: Actor
    ) -> IssuedToken:
        # Without a body: whatever the current token is. Only an admin may cause that.
        rejected = await _rejected_sha256(receive)
        if rejected is None:
            check(caller, KeyScope.ADMIN, tenant)
            return await self._issuer.renew_anyway(tenant, actor)
        check(caller, KeyScope.TOKEN, tenant)
        return await self._issuer.renew(tenant, rejected_sha256=rejected, actor=actor)

    async def _issued_for_proxy(self, scope: Scope, tenant: str, actor: Actor) -> IssuedToken:
        rejected = _query(scope).get("rejected_token_sha256")
        if rejected is not None:
            return await self._issuer.renew(
                tenant, rejected_sha256=_checked_sha256(rejected), actor=actor
            )
        return await self._issuer.issue(
            tenant, min_ttl_seconds=FORWARD_AUTH_MIN_TTL_SECONDS, at_worst_seconds=0, actor=actor
        )

    def _body(self, token: IssuedToken) -> bytes:
        fields = {
            "tenant": token.tenant,
            "access_token": token.access_token.reveal(),
            "token_type": token.token_type,
            "expires_at": token.expires_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "expires_in": max(0, int(token.seconds_left(self._clock.monotonic()))),
            "scope": token.scope,
        }
        return json.dumps(fields).encode()


def _routed(scope: Scope) -> tuple[str | None, str]:
    """Which of the routes it is, and its tenant as it was sent."""
    if scope["type"] != "http":
        return None, ""
    path: str = scope["path"]
    if path.startswith("/token/"):
        tenant, slash, rest = path[7:].partition("/")
        if scope["method"] == "GET" and not slash:
            return TOKEN_ROUTE, tenant
        if scope["method"] == "POST" and rest == "refresh":
            return REFRESH_ROUTE, tenant
    elif path.startswith("/forward-auth/") and scope["method"] == "GET" and "/" not in path[14:]:
        return FORWARD_AUTH_ROUTE, path[14:]
    return None, ""


def _query(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


async def _rejected_sha256(receive: Receive) -> str | None:
    """Off the body, which the body limit bounds; None where there is none."""
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    try:
        fields = json.loads(body) if body.strip() else None
    except (ValueError, RecursionError):
        raise InvalidRequest("The body must be a JSON object.") from None
    if fields is None:
        return None
    if not isinstance(fields, dict):
        raise InvalidRequest("The body must be a JSON object.")
    return _checked_sha256(fields.get("rejected_token_sha256"))


def _checked_sha256(given: object) -> str:
    if not isinstance(given, str) or not _SHA256.fullmatch(given):
        raise InvalidRequest(_BAD_SHA256)
    return given.lower()


def _bearer(token: IssuedToken) -> bytes:
    return b"Bearer " + token.access_token.reveal().encode("ascii")


async def _send(send: Send, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers = [
        *headers,
        (b"content-length", str(len(body)).encode("ascii")),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
