"""`/token` and `/forward-auth`, answered by a plain ASGI app ahead of FastAPI's router.

A service asks for a token before each of its calls, so an answer costs one look-up of the key, one
of the token and one body; FastAPI's routing, validation and dependencies would cost several times
that. `web.documented_routes` declares the same routes for the OpenAPI document alone.

Over 250 lines: the hot path calls no further than it must.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

from ignition_broker.broker.audit.recorder import AuditRecorder
from ignition_broker.broker.callers.access import Access
from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.broker.grants.issue import Issuer
from ignition_broker.clock import Clock
from ignition_broker.grant_ids import SEPARATOR
from ignition_broker.json_reading import read_json
from ignition_broker.model import TENANT_ID_RULE, Actor, Caller, IssuedToken, is_tenant_id
from ignition_broker.model import Scope as KeyScope
from ignition_broker.telemetry import RequestCounts
from ignition_broker.web.authorization import caller_of, check, check_may_see_tokens
from ignition_broker.web.body_limit import whole_body
from ignition_broker.web.client_names import ONLY_DEFAULT, ClientNames
from ignition_broker.web.errors import answer_for
from ignition_broker.web.middleware import RequestIds
from ignition_broker.web.path_spelling import PERCENT
from ignition_broker.web.token_bodies import TokenBodies

DEFAULT_MIN_TTL_SECONDS: Final = 60
LONGEST_MIN_TTL_SECONDS: Final = 365 * 86_400
FORWARD_AUTH_MIN_TTL_SECONDS: Final = 5
TOKEN_ROUTE: Final = "/token/{tenant}"
REFRESH_ROUTE: Final = "/token/{tenant}/refresh"
FORWARD_AUTH_ROUTE: Final = "/forward-auth/{tenant}"

ACTIONS: Final = {
    TOKEN_ROUTE: "token_issue",
    REFRESH_ROUTE: "token_refresh",
    FORWARD_AUTH_ROUTE: "token_forward",
}
"""What the audit trail calls a call of each route."""

JSON: Final = [(b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff")]
NO_STORE: Final = (b"cache-control", b"no-store")

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_WHOLE_NUMBER = re.compile(r"[0-9]{1,8}")
_BAD_TENANT = f"tenant: must be {TENANT_ID_RULE}."
_BAD_MIN_TTL = f"min_ttl: must be a whole number of seconds from 0 to {LONGEST_MIN_TTL_SECONDS}."
_BAD_SHA256 = "rejected_token_sha256: must be a SHA-256 in hexadecimal, 64 characters."


class TokenRoutes:
    """Passes every other request on to ``app``, wrong methods included."""

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        issuer: Issuer,
        audit_recorder: AuditRecorder,
        clock: Clock,
        ids: RequestIds,
        counts: RequestCounts,
        clients: ClientNames = ONLY_DEFAULT,
    ) -> None:
        self._app = app
        self._access = access
        self._issuer = issuer
        self._audit_recorder = audit_recorder
        self._ids = ids
        self._counts = counts
        self._clients = clients
        self._bodies = TokenBodies(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route, tenant = _routed(scope)
        if route is None:
            await self._app(scope, receive, send)
            return
        request_id = self._ids.of(scope)
        status = 200
        try:
            caller = await caller_of(scope, self._access)
            if route == TOKEN_ROUTE:
                token = await self._issued(scope, tenant, caller, request_id)
                body, headers = self._bodies.of(token), JSON
            elif route == REFRESH_ROUTE:
                token = await self._refreshed(scope, receive, tenant, caller, request_id)
                body, headers = self._bodies.of(token), JSON
            else:
                token = await self._issued_for_proxy(scope, tenant, caller, request_id)
                body, headers = b"", _token_headers(token)
            stored = self._audit_recorder.record_call(
                caller.name, token.tenant, ACTIONS[route], request_id
            )
            if stored is not None:
                await stored
        except Exception as error:
            self._audit_recorder.record_denied_call(error, route, request_id)
            answer = answer_for(error, request_id, scope["path"])
            status = answer.status_code
            await answer(scope, receive, send)
        else:
            headers = [
                *headers,
                (b"content-length", b"%d" % len(body)),
                NO_STORE,
                (b"x-request-id", request_id.encode("ascii")),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        self._counts.count(route, scope["method"], status)

    async def _issued(
        self, scope: Scope, tenant: str, caller: Caller, request_id: str
    ) -> IssuedToken:
        if SEPARATOR in tenant:
            # Memory has grants at other clients under ids like that.
            raise InvalidRequest(_BAD_TENANT)
        check(caller, KeyScope.TOKEN, tenant)
        grant, min_ttl = tenant, DEFAULT_MIN_TTL_SECONDS
        # Without min_ttl, a token that can't be renewed is given out until it ends.
        ending_seconds: int | None = 0
        if scope["query_string"]:
            query = _query(scope)
            grant = self._clients.grant(tenant, query)
            given = query.get("min_ttl")
            if given is not None:
                if not _WHOLE_NUMBER.fullmatch(given) or int(given) > LONGEST_MIN_TTL_SECONDS:
                    raise InvalidRequest(_BAD_MIN_TTL)
                min_ttl = int(given)
                ending_seconds = None
        held = self._issuer.held(grant, min_ttl)
        if held is not None:
            return held
        changes = self._access.changes()
        _checked(tenant)
        token = await self._issuer.issue(
            grant,
            min_ttl_seconds=min_ttl,
            ending_seconds=ending_seconds,
            actor=Actor(caller.name, request_id),
        )
        # The wait may have been long, and a key that was revoked meanwhile gets no token.
        await self._access.confirm(caller, changes)
        return token

    async def _refreshed(
        self, scope: Scope, receive: Receive, tenant: str, caller: Caller, request_id: str
    ) -> IssuedToken:
        grant = self._clients.grant(_checked(tenant), _query(scope))
        changes = self._access.changes()
        body = await whole_body(receive)
        if body is None:
            # An empty body would mean an unconditional refresh, so a missing one must not.
            raise InvalidRequest("The body broke off.")
        # None: refresh whatever the current token is, which only an admin may cause.
        rejected = _rejected_sha256(body)
        # The body may have come slowly, and a key that was revoked meanwhile causes no refresh.
        await self._access.confirm(caller, changes)
        actor = Actor(caller.name, request_id)
        if rejected is None:
            check(caller, KeyScope.ADMIN, tenant)
            token = await self._issuer.renew_anyway(grant, actor)
        else:
            check(caller, KeyScope.TOKEN, tenant)
            token = await self._issuer.renew(grant, rejected_sha256=rejected, actor=actor)
        await self._access.confirm(caller, changes)
        return token

    async def _issued_for_proxy(
        self, scope: Scope, tenant: str, caller: Caller, request_id: str
    ) -> IssuedToken:
        if SEPARATOR in tenant:
            raise InvalidRequest(_BAD_TENANT)
        check(caller, KeyScope.PROXY, tenant)
        check_may_see_tokens(caller, tenant)
        min_ttl = FORWARD_AUTH_MIN_TTL_SECONDS
        if not scope["query_string"]:
            held = self._issuer.held(tenant, min_ttl)
            if held is not None:
                return held
        actor, changes = Actor(caller.name, request_id), self._access.changes()
        query = _query(scope)
        grant = self._clients.grant(_checked(tenant), query)
        rejected = query.get("rejected_token_sha256")
        if rejected is not None:
            token = await self._issuer.renew(
                grant, rejected_sha256=_checked_sha256(rejected), actor=actor
            )
        else:
            token = await self._issuer.issue(
                grant, min_ttl_seconds=min_ttl, at_worst_seconds=0, actor=actor
            )
        await self._access.confirm(caller, changes)
        return token


def _routed(scope: Scope) -> tuple[str | None, str]:
    """The route of a request and its tenant, unchecked; None for a request of another route.

    A path with a percent escape is left to `web.path_spelling`: a reverse proxy may block
    `/forward-auth/` and let `/%66orward-auth/acme` through, so that must be no route here either.
    """
    if scope["type"] != "http" or PERCENT in scope["raw_path"]:
        return None, ""
    path: str = scope["path"]
    if path.startswith("/token/"):
        tenant, slash, rest = path[7:].partition("/")
        if not slash and scope["method"] == "GET":
            return TOKEN_ROUTE, tenant
        if scope["method"] == "POST" and rest == "refresh":
            return REFRESH_ROUTE, tenant
    elif path.startswith("/forward-auth/") and scope["method"] == "GET" and "/" not in path[14:]:
        return FORWARD_AUTH_ROUTE, path[14:]
    return None, ""


def _query(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


def _checked(tenant: str) -> str:
    if not is_tenant_id(tenant):
        raise InvalidRequest(_BAD_TENANT)
    return tenant


def _rejected_sha256(body: bytes) -> str | None:
    """The field of that name; None where the body is empty. Raises `InvalidRequest`."""
    try:
        fields = read_json(body) if body.strip() else None
    except ValueError:
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


def _token_headers(token: IssuedToken) -> list[tuple[bytes, bytes]]:
    """The token, and its SHA-256: a reverse proxy can't compute that and needs it to say that the
    token was rejected."""
    return [
        (b"authorization", b"Bearer " + token.access_token.reveal().encode("ascii")),
        (b"broker-token-sha256", token.sha256.encode("ascii")),
    ]
