"""One call passed on: token, send, and on 401 one refresh and one replay."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from starlette.types import Receive, Scope, Send

from ignition_broker.clock import Clock
from ignition_broker.model import IssuedToken
from ignition_broker.proxy.errors import PathRefused
from ignition_broker.proxy.headers import (
    Headers,
    ResponseHeaders,
    is_token_problem,
    request_headers,
)
from ignition_broker.proxy.paths import upstream_target
from ignition_broker.proxy.pauses import RenewalPauses
from ignition_broker.proxy.replay import CallerGone, RequestBody
from ignition_broker.proxy.upstream import Upstream, UpstreamAnswer

MIN_TTL_SECONDS = 5
LARGE_BODY_MIN_TTL_SECONDS = 120
EARLY_401_SECONDS = 5.0
# TRACE would send the tenant's token back to the caller; CONNECT is no request to the API.
REFUSED_METHODS = frozenset({"TRACE", "CONNECT"})


class Tokens(Protocol):
    """Where tokens come from; raises errors that are not the proxy's to judge."""

    async def issue(
        self, tenant: str, *, min_ttl_seconds: float, at_worst_seconds: float | None = None
    ) -> IssuedToken: ...

    async def renew(self, tenant: str, *, rejected_sha256: str) -> IssuedToken: ...


@dataclass(frozen=True, slots=True)
class ForwardedCall:
    """What the hot path has read off the request."""

    tenant: str
    raw_path: bytes
    prefix: bytes
    request_id: str


class Forwarder:
    """``replay_limit_bytes``: the largest body that can be sent twice."""

    def __init__(
        self,
        tokens: Tokens,
        upstream: Upstream,
        clock: Clock,
        *,
        api_url: str,
        base_path: bytes,
        replay_limit_bytes: int,
    ) -> None:
        self._tokens = tokens
        self._upstream = upstream
        self._clock = clock
        self._api_url = api_url
        self._base_path = base_path
        self._replay_limit = replay_limit_bytes
        self._pauses = RenewalPauses(clock)

    async def forward(
        self, scope: Scope, receive: Receive, send: Send, call: ForwardedCall
    ) -> None:
        """Streams the API's answer. Raises `proxy.errors` or what ``tokens`` raises, before
        anything was sent; once the answer has begun, an error breaks it off."""
        if scope["method"] in REFUSED_METHODS:
            raise PathRefused(f"The method {scope['method']} is not passed on.")
        target = upstream_target(self._base_path, call.raw_path, scope["query_string"])
        length = _content_length(scope)
        body = RequestBody(receive, self._replay_limit, length)
        has_body = length > 0 or any(name == b"transfer-encoding" for name, _ in scope["headers"])
        body.is_read_whole = not has_body
        min_ttl = LARGE_BODY_MIN_TTL_SECONDS if length > self._replay_limit else MIN_TTL_SECONDS
        token = await self._tokens.issue(call.tenant, min_ttl_seconds=min_ttl, at_worst_seconds=0)
        work = asyncio.ensure_future(
            self._answer(scope["method"], target, scope["headers"], body, has_body, token, call)
        )
        async with _abandoned_with_caller(work, body):
            try:
                answer, own_headers = await work
            except CallerGone:
                return
            await self._pass_back(scope["method"], answer, own_headers, send, call)

    async def _answer(
        self,
        method: str,
        target: bytes,
        received: Headers,
        body: RequestBody,
        has_body: bool,  # noqa: FBT001
        token: IssuedToken,
        call: ForwardedCall,
    ) -> tuple[UpstreamAnswer, Headers]:
        async def sent(with_token: IssuedToken) -> UpstreamAnswer:
            headers = request_headers(received, with_token.access_token.reveal(), call.request_id)
            return await self._upstream.send(
                method, target, headers, body.chunks() if has_body else None
            )

        answer = await sent(token)
        if not _blames_token(answer):
            self._pauses.token_was_accepted(call.tenant)
            return answer, []
        if self._pauses.is_on(call.tenant):
            return answer, []
        try:
            renewed = await self._tokens.renew(call.tenant, rejected_sha256=token.sha256)
        except BaseException:
            answer.close()
            raise
        if renewed.sha256 == token.sha256:
            return answer, []
        if not await self._can_replay(body):
            return answer, [(b"broker-error", b"not-replayed")]
        answer.close()
        answer = await sent(renewed)
        if _blames_token(answer):
            self._pauses.new_token_was_refused(call.tenant, renewed.sha256)
        else:
            self._pauses.renewal_helped(call.tenant)
        return answer, []

    async def _can_replay(self, body: RequestBody) -> bool:
        """A 401 may come ahead of the body's end; whether all of it fits the limit shows later."""
        give_up_at = self._clock.monotonic() + EARLY_401_SECONDS
        while body.can_replay and not body.is_read_whole:
            if self._clock.monotonic() > give_up_at:
                return False
            await self._clock.sleep(0.01)
        return body.can_replay

    async def _pass_back(
        self,
        method: str,
        answer: UpstreamAnswer,
        own_headers: Headers,
        send: Send,
        call: ForwardedCall,
    ) -> None:
        headers = ResponseHeaders(self._api_url, call.prefix).of(answer.headers) + own_headers
        try:
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            if method != "HEAD":
                async for chunk in answer.chunks():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            answer.close()


@contextlib.asynccontextmanager
async def _abandoned_with_caller(
    work: asyncio.Future[tuple[UpstreamAnswer, Headers]], body: RequestBody
) -> AsyncIterator[None]:
    """Ends the block, and with it the upstream request, when the caller goes away."""
    current = asyncio.current_task()
    is_gone = False

    async def watch() -> None:
        nonlocal is_gone
        while not body.is_read_whole:
            if work.done():
                return
            await asyncio.wait([work], timeout=0.2)
        await body.caller_gone()
        is_gone = True
        if current is not None:
            current.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not is_gone or current is None:
            raise
        current.uncancel()
    finally:
        watcher.cancel()
        if not work.done():
            work.cancel()


def _blames_token(answer: UpstreamAnswer) -> bool:
    return answer.status == 401 and is_token_problem(answer.headers)


def _content_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0
