"""Forwards one call: gets a token, sends, and after a 401 refreshes once and replays once.

Over 250 lines: one call's attempts share its state.
"""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from ignition_broker.broker.audit.recorder import AuditRecorder
from ignition_broker.broker.errors import NotRenewable
from ignition_broker.clock import Clock
from ignition_broker.model import IssuedToken
from ignition_broker.outbound.connection_reuse import BODILESS_STATUSES
from ignition_broker.outbound.errors import Unreachable
from ignition_broker.outbound.exchange import Headers
from ignition_broker.outbound.upstream import Upstream, UpstreamAnswer
from ignition_broker.proxy.busy_retries import BUSY_STATUSES, IDEMPOTENT_METHODS, retries_asked_for
from ignition_broker.proxy.caller_disconnects import CallerDisconnects
from ignition_broker.proxy.caller_pace import ANSWER_GRACE_SECONDS, BODY_GRACE_SECONDS, CallerPace
from ignition_broker.proxy.forwarded_call import ApiRequest, ForwardedCall, Tokens
from ignition_broker.proxy.framing import announced
from ignition_broker.proxy.headers import (
    ALLOWANCE_REMAINING,
    ALLOWANCE_RESET,
    ApiLinks,
    blames_token,
    request_headers,
    response_headers,
)
from ignition_broker.proxy.paging.asked import HEADER as PAGINATE
from ignition_broker.proxy.paging.asked import pages_asked
from ignition_broker.proxy.paging.walk import PageStreams
from ignition_broker.proxy.paths import PathRefused, upstream_target
from ignition_broker.proxy.renewal_pauses import RenewalPauses
from ignition_broker.proxy.request_body import RequestBody
from ignition_broker.proxy.tenant_concurrency import TenantConcurrency
from ignition_broker.rate_limits import as_texts, seconds_to_wait
from ignition_broker.server.http_protocol import HAS_EMPTY_QUERY
from ignition_broker.server.request_order import OFFERED_PROTOCOLS

ACTION = "proxy_call"
"""What the audit trail calls it."""
MIN_TTL_SECONDS = 5
LARGE_BODY_MIN_TTL_SECONDS = 120
# TRACE would send the tenant's token back to the caller; CONNECT is no request to the API.
REFUSED_METHODS = frozenset({"TRACE", "CONNECT"})
WORTH_A_SECOND_LOOK = BUSY_STATUSES | {401, 403}


class Forwarder:
    """The proxy: passes callers' requests on to Ignition's API with the tenant's token.

    ``api_url`` and its ``base_path`` say where to; ``replay_limit_bytes`` is the largest body that
    can be sent twice; ``timeout_seconds`` bounds the waits that `Broker-Retry` asks for;
    ``tenant_concurrency`` is how many calls of one tenant run at once.
    """

    def __init__(
        self,
        tokens: Tokens,
        upstream: Upstream,
        clock: Clock,
        audit_recorder: AuditRecorder,
        pages: PageStreams,
        *,
        api_url: str,
        base_path: bytes,
        replay_limit_bytes: int,
        timeout_seconds: float,
        tenant_concurrency: int,
    ) -> None:
        self._tokens = tokens
        self._upstream = upstream
        self._clock = clock
        self._audit_recorder = audit_recorder
        self._pages = pages
        self._links = ApiLinks(api_url)
        self._base_path = base_path.rstrip(b"/")
        self._replay_limit = replay_limit_bytes
        self._timeout_seconds = timeout_seconds
        self._pauses = RenewalPauses(clock)
        self._concurrency = TenantConcurrency(tenant_concurrency)
        self._disconnects = CallerDisconnects()

    async def forward(
        self, scope: Scope, receive: Receive, send: Send, call: ForwardedCall
    ) -> None:
        """Sends the request on and streams the API's answer to ``send``.

        Raises `PathRefused`, `InvalidRequest`, `Unavailable`, `ExchangeError` or what ``tokens``
        raises. Until ``call.status`` is set nothing was sent to the caller; after that, the answer
        has begun and can only be broken off.
        """
        method: str = scope["method"]
        if method in REFUSED_METHODS:
            raise PathRefused(f"The method {method} is not passed on.")
        state = scope["state"]
        offered = state.get(OFFERED_PROTOCOLS)
        if offered and b"websocket" in offered and method == "GET":
            # A handshake (RFC 6455 section 4.1); as a plain GET it would serve nobody.
            raise PathRefused("WebSockets are not passed on.")
        target = upstream_target(self._base_path, call.raw_path, scope["query_string"])
        if state.get(HAS_EMPTY_QUERY):
            target += b"?"
        headers: Headers = scope["headers"]
        length, has_body, wishes = announced(headers)
        if wishes is not None:
            if call.meter is not None and call.waiting is None:
                await call.meter.forward_as_wished(scope, receive, send, call, wishes)
                return
            if PAGINATE in wishes:
                asked = pages_asked(wishes[PAGINATE], method, has_body=has_body)
                await self._pages.stream(self.forward, scope, receive, send, call, asked)
                return
        # A caller without a body can only be slow in taking the answer.
        pace = CallerPace(
            self._clock.monotonic, BODY_GRACE_SECONDS if has_body else ANSWER_GRACE_SECONDS
        )
        body = RequestBody(receive, self._replay_limit, length, pace)
        if not has_body:
            body.has_none()
        min_ttl = LARGE_BODY_MIN_TTL_SECONDS if length > self._replay_limit else MIN_TTL_SECONDS
        request = ApiRequest(method, target, headers, body, has_body)
        with self._disconnects.watch(body):
            has_waited = not self._concurrency.try_acquire(call.tenant, call.caller)
            if has_waited:
                await self._concurrency.acquire(call.tenant, call.caller)
            try:
                token = self._tokens.held(call.tenant, min_ttl)
                if token is None:
                    has_waited = True
                    token = await self._tokens.issue(
                        call.tenant, min_ttl_seconds=min_ttl, at_worst_seconds=0
                    )
                if has_waited:
                    await call.confirm()
                stored = self._audit_recorder.record_call(
                    call.caller, call.tenant, ACTION, call.request_id
                )
                if stored is not None:
                    await stored
                answer = await self._sent(request, token, call)
                if answer.status in WORTH_A_SECOND_LOOK:
                    answer = await self._mended(request, answer, token, call)
                else:
                    self._pauses.token_was_accepted(call.tenant, token.version)
                await self._pass_back(request, answer, send, call)
            finally:
                self._concurrency.release(call.tenant, call.caller)

    async def _mended(
        self, request: ApiRequest, answer: UpstreamAnswer, token: IssuedToken, call: ForwardedCall
    ) -> UpstreamAnswer:
        """The answer, or that to another try: with a new token, or after the wait it asks for."""
        retries = retries_asked_for(request.method, request.headers)
        give_up_at = self._clock.monotonic() + self._timeout_seconds
        while True:
            answer, token = await self._with_a_token_that_works(request, answer, token, call)
            if answer.status not in BUSY_STATUSES or not retries or not request.body.can_replay:
                return answer
            seconds = seconds_to_wait(
                answer.status, as_texts(answer.headers), now=self._clock.now()
            )
            if seconds is None or self._clock.monotonic() + seconds >= give_up_at:
                return answer
            await answer.aclose()
            retries -= 1
            await self._clock.sleep(seconds)
            await call.confirm()
            answer = await self._sent(request, token, call)

    async def _with_a_token_that_works(
        self, request: ApiRequest, answer: UpstreamAnswer, token: IssuedToken, call: ForwardedCall
    ) -> tuple[UpstreamAnswer, IssuedToken]:
        """One refresh and one replay where the answer blames the token and both can help.

        Returns the last answer and the token that it was given for.
        """
        if not blames_token(answer.status, answer.headers):
            self._pauses.token_was_accepted(call.tenant, token.version)
            return answer, token
        if not token.is_renewable or not self._pauses.may_renew(call.tenant, token.version):
            return answer, token
        try:
            renewed = await self._tokens.renew_refused(call.tenant, rejected_sha256=token.sha256)
        except NotRenewable:
            return answer, token
        except BaseException:
            await answer.aclose()
            raise
        if renewed.sha256 == token.sha256:
            return answer, token
        if not request.body.can_replay:
            request.added = ((b"broker-error", b"not-replayed"),)
            return answer, renewed
        await answer.aclose()
        await call.confirm()
        answer = await self._sent(request, renewed, call)
        if blames_token(answer.status, answer.headers):
            self._pauses.new_token_was_refused(call.tenant, renewed.version)
        else:
            self._pauses.token_was_accepted(call.tenant, renewed.version)
        return answer, renewed

    async def _sent(
        self, request: ApiRequest, token: IssuedToken, call: ForwardedCall
    ) -> UpstreamAnswer:
        """The API's answer. Tries a second time where the first can't have done anything.

        Raises `ExchangeError`, and `AllowanceSpent` where no call is left for it.
        """
        headers = request_headers(request.headers, token.access_token.reveal(), call.request_id)
        meter, entered, taken = call.meter, call.entered, None
        for is_last in (False, True):
            body = request.body.chunks() if request.has_body else None
            if meter is not None:
                if entered is not None and entered.take(self._clock.monotonic()):
                    taken = entered
                else:
                    taken = meter.try_take(call) or await meter.take(call)
            try:
                answer = await self._upstream.send(
                    call.tenant, request.method, request.target, headers, body
                )
            except BaseException as error:
                if meter is not None and taken is not None:
                    meter.unanswered(taken, error)
                if not isinstance(error, Unreachable):
                    raise
                # RFC 9110 section 9.2.2: a request that the API may have carried out is sent again
                # only if it is idempotent.
                is_safe = not error.was_sent or (
                    error.may_be_stale
                    and request.method in IDEMPOTENT_METHODS
                    and request.body.can_replay
                    and not request.body.is_caller_gone
                )
                if is_last or not is_safe:
                    raise
            else:
                if meter is not None and taken is not None:
                    request.left = meter.answered(taken, answer)
                return answer
        raise AssertionError("the last try returns or raises")

    async def _pass_back(
        self, request: ApiRequest, answer: UpstreamAnswer, send: Send, call: ForwardedCall
    ) -> None:
        """Streams the answer to the caller and returns its connection."""
        if not 200 <= answer.status <= 599:
            await answer.aclose()
            raise Unreachable(f"The API's answer has no HTTP status: {answer.status}.")
        headers = response_headers(answer.headers, self._links, call.prefix)
        headers += request.added
        if request.left is not None:
            remaining, reset = request.left
            headers.append((ALLOWANCE_REMAINING, b"%d" % remaining))
            headers.append((ALLOWANCE_RESET, b"%d" % reset))
        headers.append((b"x-request-id", call.request_id.encode("ascii")))
        has_body = request.method != "HEAD" and answer.status not in BODILESS_STATUSES
        if not has_body and request.method != "HEAD":
            # uvicorn would wait for the bytes that a Content-Length announces.
            headers = [pair for pair in headers if pair[0] != b"content-length"]
        call.status = answer.status
        pace = request.body.pace
        if request.has_body:
            pace = CallerPace(self._clock.monotonic, ANSWER_GRACE_SECONDS)
            request.body.answers_at(pace)
        try:
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            while has_body and not answer.is_whole:
                piece = await answer.read()
                pace.starts_anew()
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                pace.moved(len(piece))
            rest = await answer.read() if has_body else b""
            request.body.is_answered = True
            pace.starts_anew()
            await send({"type": "http.response.body", "body": rest, "more_body": False})
        finally:
            await answer.aclose()
