"""What one proxied call sends to the API, and what it answers, with neither of them there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import pytest
from tests.unit.values import ManualClock, make_token

from ignition_broker.broker.errors import NotRenewable, Unauthenticated, Unavailable
from ignition_broker.model import Caller
from ignition_broker.outbound.errors import Unreachable
from ignition_broker.proxy.forward import LARGE_BODY_MIN_TTL_SECONDS, MIN_TTL_SECONDS, Forwarder
from ignition_broker.proxy.forwarded_call import ForwardedCall
from ignition_broker.proxy.paging.walk import PageStreams
from ignition_broker.proxy.paths import PathRefused
from ignition_broker.rate_limits import LIMIT_HEADERS
from ignition_broker.server.http_protocol import HAS_EMPTY_QUERY
from ignition_broker.server.request_order import OFFERED_PROTOCOLS
from ignition_broker.server.stop_state import Stopping
from ignition_broker.web.page_problems import PageProblems

REPLAY_LIMIT = 10
KEY = Caller("key", frozenset(), ("acme",))


@dataclass
class Answer:
    status: int = 200
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    closed: int = 0

    @property
    def tells_limit(self) -> bool:
        return any(name in LIMIT_HEADERS for name, _value in self.headers)

    @property
    def is_whole(self) -> bool:
        return len(self.pieces) <= 1

    async def read(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    async def aclose(self) -> None:
        self.closed += 1


class Api:
    """Answers, or raises, what it was given, in order."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, bytes, dict[bytes, bytes], bytes]] = []

    async def send(self, _tenant, method, target, headers, body):
        content = b"".join([chunk async for chunk in body]) if body is not None else b""
        self.sent.append((method, target, dict(headers), content))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def aclose(self) -> None:
        pass

    def tokens(self) -> list[bytes]:
        return [headers[b"authorization"] for _method, _target, headers, _body in self.sent]


class Tokens:
    def __init__(self) -> None:
        self.current = make_token(version=1)
        self.is_held = True
        self.asked_ttl: list[float] = []
        self.renewals: list[str] = []
        self.refusal: Exception | None = None

    def held(self, _tenant, min_ttl_seconds):
        self.asked_ttl.append(min_ttl_seconds)
        return self.current if self.is_held else None

    async def issue(self, _tenant, **_wanted):
        return self.current

    async def renew_refused(self, _tenant, *, rejected_sha256):
        self.renewals.append(rejected_sha256)
        if self.refusal is not None:
            raise self.refusal
        self.current = make_token(version=self.current.version + 1)
        return self.current


class AuditRecorder:
    def __init__(self) -> None:
        self.recorded: list[tuple[str, ...]] = []
        self.denied: list[Exception] = []

    def record_call(self, *fields: str) -> None:
        self.recorded.append(fields)

    def record_denied_call(self, error: Exception, *_fields: str) -> None:
        self.denied.append(error)


class Stand:
    """A forwarder between a caller and an API that are both made up."""

    def __init__(
        self,
        *answers: Answer | Exception,
        tenant_concurrency: int = 8,
        clock: ManualClock | None = None,
    ) -> None:
        self.api, self.tokens, self.audit_recorder = Api(*answers), Tokens(), AuditRecorder()
        self.clock = clock or ManualClock()
        self.messages: list[dict] = []
        self.confirmed = 0
        self.key_has_ended = False
        self.stopping = Stopping(self.clock, grace_seconds=30)
        self.forwarder = Forwarder(
            self.tokens,
            self.api,
            self.clock,
            self.audit_recorder,
            PageStreams(
                self.clock,
                tenant_streams=tenant_concurrency,
                stopping=self.stopping,
                problem_of=PageProblems(self.audit_recorder).members,
                admit=self.admit,
            ),
            api_url="https://api.example/base",
            base_path=b"/base",
            replay_limit_bytes=REPLAY_LIMIT,
            timeout_seconds=30,
            tenant_concurrency=tenant_concurrency,
        )

    async def admit(self, _call: ForwardedCall) -> None:
        await self.admission()

    async def admission(self) -> None:
        """Replaced by a test in which a page has to wait."""

    async def confirm(self) -> None:
        self.confirmed += 1
        if self.key_has_ended:
            raise Unauthenticated("The key was revoked.")

    async def call(
        self,
        method="GET",
        path=b"/v1/me",
        query=b"",
        headers=(),
        body=b"",
        state=None,
        receive=None,
        send=None,
    ) -> ForwardedCall:
        parts = [body] if body else []
        sent_headers = list(headers)
        if body:
            sent_headers.append((b"content-length", b"%d" % len(body)))
        scope = {
            "type": "http",
            "method": method,
            "query_string": query,
            "headers": sent_headers,
            "state": state or {},
        }

        async def receive_parts():
            if parts:
                return {"type": "http.request", "body": parts.pop(), "more_body": False}
            await asyncio.Event().wait()
            raise AssertionError

        async def keep(message):
            self.messages.append(message)

        call = ForwardedCall("acme", path, b"/proxy/acme", "id-1", "key", self.confirm, KEY)
        await self.forwarder.forward(scope, receive or receive_parts, send or keep, call)
        return call

    @property
    def answered(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    def header(self, name: bytes) -> bytes | None:
        return dict(self.messages[0]["headers"]).get(name)


def challenge(status: int = 401) -> Answer:
    return Answer(status, [(b"www-authenticate", b'Bearer error="invalid_token"')])


async def test_a_call_goes_out_with_the_tenants_token_and_its_answer_comes_back_in_pieces():
    api_answer = Answer(201, [(b"x-a", b"1"), (b"set-cookie", b"a=b")], [b"one", b"two", b"end"])
    stand = Stand(api_answer)
    call = await stand.call("POST", b"/v1/x", b"q=1", [(b"cookie", b"c=d")], b"body")
    ((method, target, headers, body),) = stand.api.sent
    assert (method, target, body) == ("POST", b"/base/v1/x?q=1", b"body")
    assert headers[b"authorization"] == b"Bearer acme-1"
    assert headers[b"x-request-id"] == b"id-1"
    assert b"cookie" not in headers
    assert call.status == stand.messages[0]["status"] == 201
    assert [message.get("body") for message in stand.messages[1:]] == [b"one", b"two", b"end"]
    assert [message["more_body"] for message in stand.messages[1:]] == [True, True, False]
    assert stand.header(b"x-a") == b"1"
    assert stand.header(b"set-cookie") is None
    assert stand.header(b"x-request-id") == b"id-1"
    assert api_answer.closed == 1
    assert stand.audit_recorder.recorded == [("key", "acme", "proxy_call", "id-1")]


async def test_a_query_that_is_only_a_question_mark_goes_out_too():
    stand = Stand(Answer())
    await stand.call(state={HAS_EMPTY_QUERY: True})
    assert stand.api.sent[0][1] == b"/base/v1/me?"


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
async def test_methods_that_are_not_passed_on_are_refused_unsent(method):
    stand = Stand(Answer())
    with pytest.raises(PathRefused):
        await stand.call(method)
    assert stand.api.sent == []


async def test_a_websocket_handshake_is_refused_unsent_and_other_offers_are_ignored():
    stand = Stand(Answer())
    with pytest.raises(PathRefused, match="WebSockets"):
        await stand.call(state={OFFERED_PROTOCOLS: b"websocket"})
    assert stand.api.sent == []
    await stand.call(state={OFFERED_PROTOCOLS: b"h2c"})
    assert len(stand.api.sent) == 1


async def test_a_token_that_is_held_is_used_without_asking_for_the_key_again():
    stand = Stand(Answer())
    await stand.call()
    assert stand.confirmed == 0
    assert stand.tokens.asked_ttl == [MIN_TTL_SECONDS]


async def test_after_a_wait_for_a_token_the_key_is_checked_again():
    stand = Stand(Answer())
    stand.tokens.is_held = False
    stand.key_has_ended = True
    with pytest.raises(Unauthenticated):
        await stand.call()
    assert stand.api.sent == []


async def test_a_body_too_large_to_be_replayed_gets_a_token_with_longer_to_live():
    stand = Stand(Answer())
    await stand.call("POST", body=b"x" * (REPLAY_LIMIT + 1))
    assert stand.tokens.asked_ttl == [LARGE_BODY_MIN_TTL_SECONDS]


@pytest.mark.parametrize("status", [401, 403])
async def test_after_a_401_the_token_is_renewed_once_and_the_call_replayed_once(status):
    first, second = challenge(status), challenge(status)
    stand = Stand(first, second)
    old = stand.tokens.current.sha256
    call = await stand.call("POST", body=b"body")
    assert stand.tokens.renewals == [old]
    assert stand.api.tokens() == [b"Bearer acme-1", b"Bearer acme-2"]
    assert [body for _method, _target, _headers, body in stand.api.sent] == [b"body", b"body"]
    assert call.status == status, "the second answer is the caller's, whatever it is"
    assert (first.closed, second.closed) == (1, 1)
    assert stand.confirmed == 1


async def test_a_403_that_does_not_blame_the_token_is_the_callers():
    stand = Stand(Answer(403))
    assert (await stand.call()).status == 403
    assert stand.tokens.renewals == []


async def test_a_new_token_that_is_refused_pauses_the_renewals():
    stand = Stand(challenge(), challenge(), challenge())
    await stand.call()
    await stand.call()
    assert len(stand.tokens.renewals) == 1
    assert len(stand.api.sent) == 3


async def test_a_body_that_was_not_kept_is_not_replayed_and_the_answer_says_so():
    stand = Stand(challenge())
    call = await stand.call("POST", body=b"x" * (REPLAY_LIMIT + 1))
    assert call.status == 401
    assert len(stand.tokens.renewals) == 1, "the next call has a token that works"
    assert stand.header(b"broker-error") == b"not-replayed"


async def test_a_token_that_cannot_be_renewed_leaves_the_401_to_the_caller():
    stand = Stand(challenge(), challenge())
    stand.tokens.refusal = NotRenewable("acme", None)
    assert (await stand.call()).status == 401
    stand = Stand(challenge())
    stand.tokens.current = replace(stand.tokens.current, is_renewable=False)
    assert (await stand.call()).status == 401
    assert stand.tokens.renewals == []


async def test_a_renewal_that_fails_is_told_and_the_apis_connection_given_back():
    answer = challenge()
    stand = Stand(answer)
    stand.tokens.refusal = Unavailable("The database is away.")
    with pytest.raises(Unavailable):
        await stand.call()
    assert answer.closed == 1
    assert stand.messages == []


async def test_a_key_that_ended_during_the_renewal_replays_nothing():
    stand = Stand(challenge())
    stand.key_has_ended = True
    with pytest.raises(Unauthenticated):
        await stand.call()
    assert len(stand.api.sent) == 1


async def test_a_busy_api_is_asked_again_as_often_as_the_caller_allows():
    busy = [Answer(429, [(b"retry-after", b"3")]) for _ in range(3)]
    stand = Stand(*busy, Answer(200))
    began = stand.clock.at
    call = await stand.call(headers=[(b"broker-retry", b"2")])
    assert call.status == 429
    assert len(stand.api.sent) == 3
    assert stand.clock.at - began == 6
    assert [answer.closed for answer in busy] == [1, 1, 1]


@pytest.mark.parametrize(
    ("method", "asked", "wait"), [("GET", b"0", b"1"), ("POST", b"2", b"1"), ("GET", b"2", b"31")]
)
async def test_a_busy_api_is_not_asked_again_unasked_or_for_too_long(method, asked, wait):
    stand = Stand(Answer(503, [(b"retry-after", wait)]))
    assert (await stand.call(method, headers=[(b"broker-retry", asked)])).status == 503
    assert len(stand.api.sent) == 1


@pytest.mark.parametrize(
    ("method", "error", "tries"),
    [
        ("POST", Unreachable("no connection", was_sent=False), 2),
        ("GET", Unreachable("a kept connection was closed", may_be_stale=True), 2),
        ("POST", Unreachable("a kept connection was closed", may_be_stale=True), 1),
        ("GET", Unreachable("reset amid the answer"), 1),
    ],
)
async def test_what_the_api_may_have_carried_out_is_sent_again_only_if_idempotent(
    method, error, tries
):
    stand = Stand(error, error, Answer())
    with pytest.raises(Unreachable):
        await stand.call(method)
    assert len(stand.api.sent) == tries


async def test_a_second_try_that_succeeds_is_the_answer():
    stand = Stand(Unreachable("no connection", was_sent=False), Answer(200, [], [b"x"]))
    assert (await stand.call("POST", body=b"body")).status == 200
    assert [body for _method, _target, _headers, body in stand.api.sent] == [b"body", b"body"]


async def test_an_answer_without_an_http_status_is_no_answer():
    answer = Answer(99)
    stand = Stand(answer)
    with pytest.raises(Unreachable, match="99"):
        await stand.call()
    assert answer.closed == 1
    assert stand.messages == []


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_an_answer_without_a_body_is_not_read(method, status):
    stand = Stand(Answer(status, [(b"content-length", b"5")], [b"never"]))
    await stand.call(method)
    assert stand.answered == b""
    assert stand.header(b"content-length") == (b"5" if method == "HEAD" else None)


async def test_a_slot_is_given_back_whatever_became_of_the_call():
    stand = Stand(Unreachable("reset"), challenge(), Answer(), tenant_concurrency=1)
    stand.tokens.refusal = Unavailable("The database is away.")
    for expected in (Unreachable, Unavailable):
        with pytest.raises(expected):
            await stand.call()
    assert (await stand.call()).status == 200


async def test_a_caller_that_disconnects_amid_the_answer_ends_the_call_silently():
    stand = Stand()
    answer = Answer(200, [], [b"first", b"", b""])
    endless = asyncio.Event()

    async def read() -> bytes:
        if answer.pieces[0] == b"first":
            return answer.pieces.pop(0)
        await endless.wait()
        raise AssertionError

    answer.read = read
    stand.api.answers.append(answer)
    gone = asyncio.Event()

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        stand.messages.append(message)
        if message.get("body") == b"first":
            gone.set()

    scope = {"type": "http", "method": "GET", "query_string": b"", "headers": [], "state": {}}
    call = ForwardedCall("acme", b"/x", b"/proxy/acme", "id-1", "key", stand.confirm, KEY)
    await asyncio.wait_for(stand.forwarder.forward(scope, receive, send, call), 5)
    assert call.status == 200
    assert answer.closed == 1
    assert stand.answered == b"first"
