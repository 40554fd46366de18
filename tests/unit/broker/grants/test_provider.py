"""What a token request comes to, for every answer and every failure of the way there."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from urllib.parse import parse_qs

import httpx
import pytest
import respx

from ignition_broker.broker.grants.circuit_breaker import CircuitBreaker
from ignition_broker.broker.grants.ignition_client import LARGEST_ANSWER_BYTES, IgnitionClient
from ignition_broker.broker.grants.provider import Provider, Registration
from ignition_broker.broker.grants.token_outcomes import (
    AnswerLost,
    Misconfigured,
    NoToken,
    NotSent,
    Refused,
    Rejected,
    Renewed,
    Rotated,
    Throttled,
)
from ignition_broker.clock import SystemClock
from ignition_broker.oauth.requests import client_secret_post
from ignition_broker.oauth.revocation import RevocationUnanswered, Revoked
from ignition_broker.oauth.tokens import (
    AuthorizationCode,
    ClientSecret,
    CodeVerifier,
    RefreshToken,
)

TOKEN_URL = "https://ignition.test/oauth/token"
REVOKE_URL = "https://ignition.test/oauth/revoke"
SECRET = ClientSecret("client-secret-of-the-broker")
OLD, NEW = "refresh-token-of-before", "refresh-token-of-now"
FIELDS = {"access_token": "access-token-of-now", "refresh_token": NEW, "expires_in": 3600}
TOKEN = json.dumps(FIELDS).encode()


@pytest.fixture
def wire():
    with respx.mock(using="httpx") as router:
        yield router


@pytest.fixture
def provider():
    registration = Registration(
        client_id="broker",
        client_secret=SECRET,
        redirect_uri="https://broker.test/callback",
        scope="read",
        authorize_url="https://ignition.test/oauth/authorize",
        token_url=TOKEN_URL,
        revoke_url=REVOKE_URL,
        authenticate=client_secret_post("broker", SECRET),
        body_format="form",
        refusal_codes=frozenset({"badrefreshtoken"}),
    )
    clock = SystemClock()
    return Provider(
        IgnitionClient(timeout_seconds=3),
        registration,
        clock,
        CircuitBreaker(clock, probe_seconds=3),
        timeout_seconds=3,
        patience_seconds=5,
    )


class Pieces(httpx.AsyncByteStream):
    """A body as it comes off the wire; an error among the pieces breaks it off."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = pieces

    async def __aiter__(self):
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


def answered(status: int, *pieces: bytes | Exception, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named, stream=Pieces(*pieces))


async def refreshed(provider: Provider):
    return await provider.refresh(RefreshToken(OLD), may_send=lambda: True)


async def test_a_refresh_is_one_form_with_the_client_and_its_secret(provider, wire):
    route = wire.post(TOKEN_URL).mock(return_value=answered(200, TOKEN))
    outcome = await refreshed(provider)
    assert isinstance(outcome, Renewed)
    assert outcome.answer.refresh_token.reveal() == NEW
    (call,) = route.calls
    assert parse_qs(call.request.content.decode()) == {
        "grant_type": ["refresh_token"],
        "refresh_token": [OLD],
        "client_id": ["broker"],
        "client_secret": [SECRET.reveal()],
    }
    assert call.request.headers["accept-encoding"] == "identity"
    assert call.request.headers["user-agent"].startswith("ignition-broker/")


OLDER = ClientSecret("client-secret-of-before")
INVALID_CLIENT = (401, b'{"error": "invalid_client"}')


@pytest.fixture
def rotating(provider):
    """The client's secret is being rotated; how often the newest was refused is counted."""
    provider._registration = replace(
        provider._registration, previous=(OLDER, client_secret_post("broker", OLDER))
    )
    provider.refused = 0

    def on_secret_refused() -> None:
        provider.refused += 1

    provider._on_secret_refused = on_secret_refused
    return provider


def secrets_of(route) -> list[str]:
    forms = [parse_qs(call.request.content.decode()) for call in route.calls]
    return [form["client_secret"][0] for form in forms]


async def test_the_newer_secret_is_tried_first_and_alone_where_it_is_known(rotating, wire):
    route = wire.post(TOKEN_URL).mock(return_value=answered(200, TOKEN))
    assert isinstance(await refreshed(rotating), Renewed)
    assert secrets_of(route) == [SECRET.reveal()]
    assert rotating.refused == 0


async def test_where_the_newer_secret_is_refused_the_same_request_goes_out_with_the_older(
    rotating, wire
):
    route = wire.post(TOKEN_URL)
    for ask in (
        lambda: refreshed(rotating),
        lambda: rotating.exchange_code(AuthorizationCode("c"), CodeVerifier("v" * 43)),
    ):
        route.calls.clear()
        route.side_effect = [answered(*INVALID_CLIENT), answered(200, TOKEN)]
        assert isinstance(await ask(), Renewed)
        assert secrets_of(route) == [SECRET.reveal(), OLDER.reveal()]
        first, second = (parse_qs(call.request.content.decode()) for call in route.calls)
        assert {**first, "client_secret": None} == {**second, "client_secret": None}
    revoke = wire.post(REVOKE_URL)
    revoke.side_effect = [answered(*INVALID_CLIENT), answered(200)]
    assert await rotating.revoke(RefreshToken(OLD)) == Revoked()
    assert secrets_of(revoke) == [SECRET.reveal(), OLDER.reveal()]
    assert rotating.refused == 3


async def test_where_both_secrets_are_refused_the_client_is_misconfigured(rotating, wire):
    route = wire.post(TOKEN_URL)
    said = b'{"error": "invalid_client", "error_description": "%s"}' % OLDER.reveal().encode()
    route.side_effect = [answered(*INVALID_CLIENT), answered(401, said)]
    outcome = await refreshed(rotating)
    assert isinstance(outcome, Misconfigured)
    assert OLDER.reveal() not in str(outcome), "the older secret is masked too"
    assert len(route.calls) == 2


@pytest.mark.parametrize(
    "answer",
    [
        (400, b'{"error": "invalid_grant"}'),
        (401, b"<html>who are you?</html>"),
        (400, b'{"error": "unauthorized_client"}'),
        (502, b'{"error": "invalid_client"}'),
        (429, b"{}"),
        (401, b'{"error": "invalid_client", "refresh_token": "%s"}' % NEW.encode()),
        (401, b'{"error": "invalid_client", "error_desc'),
    ],
)
async def test_nothing_else_causes_a_second_request(rotating, wire, answer):
    """The first may have spent the refresh token."""
    route = wire.post(TOKEN_URL).mock(return_value=answered(*answer))
    await refreshed(rotating)
    assert len(route.calls) == 1
    assert rotating.refused == 0


async def test_without_an_older_secret_a_refusal_is_final(provider, wire):
    route = wire.post(TOKEN_URL).mock(return_value=answered(*INVALID_CLIENT))
    assert isinstance(await refreshed(provider), Misconfigured)
    assert len(route.calls) == 1


async def test_a_code_is_exchanged_with_its_verifier(provider, wire):
    route = wire.post(TOKEN_URL).mock(return_value=answered(200, TOKEN))
    outcome = await provider.exchange_code(AuthorizationCode("c"), CodeVerifier("v" * 43))
    assert isinstance(outcome, Renewed)
    form = parse_qs(route.calls.last.request.content.decode())
    assert (form["code"], form["code_verifier"]) == (["c"], ["v" * 43])
    assert form["redirect_uri"] == ["https://broker.test/callback"]


@pytest.mark.parametrize(
    "answer",
    [
        answered(200, TOKEN[:9], TOKEN[9:]),
        answered(201, TOKEN),
        answered(200, gzip.compress(TOKEN), content_encoding="gzip"),
        answered(200, gzip.compress(TOKEN)),
        answered(200, TOKEN, content_encoding="gzip"),
        answered(200, TOKEN, content_encoding="br"),
        answered(200, TOKEN, content_type="text/html; charset=no-such-charset"),
        answered(200, TOKEN, content_type="application/json; charset=utf-16"),
        answered(200, b"\xef\xbb\xbf" + TOKEN),
        answered(200, TOKEN.decode().encode("utf-16")),
        answered(200, json.dumps({"data": FIELDS}).encode()),
        answered(200, json.dumps({"accessToken": "a", "refreshToken": NEW}).encode()),
        answered(200, b"access_token=a&refresh_token=" + NEW.encode()),
        answered(200, TOKEN, httpx.ReadError("reset")),
    ],
)
async def test_a_token_is_read_however_it_comes(provider, wire, answer):
    wire.post(TOKEN_URL).mock(return_value=answer)
    outcome = await refreshed(provider)
    assert isinstance(outcome, Renewed | Rotated), outcome
    assert outcome.answer.refresh_token.reveal() == NEW


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (answered(400, b'{"error": "invalid_grant"}'), Refused("")),
        (answered(200, b'{"error": "Invalid-Grant"}'), Refused("")),
        (answered(400, b"error=invalid_grant&error_description=gone"), Refused("gone")),
        (answered(400, b'{"error": "bad_refresh_token"}'), Refused("bad_refresh_token")),
        (answered(401, b'{"error": "invalid_client"}'), Misconfigured("invalid_client", "")),
        (answered(400, b'{"error": "invalid_scope"}'), Rejected(400, "invalid_scope", "")),
        (answered(429, b"slow down", retry_after="7"), Throttled(429, 7)),
        (answered(503, b"<p>"), Throttled(503, None)),
        (answered(500, b'{"error": "server_error"}'), AnswerLost),
        (answered(502, b"<p>"), AnswerLost),
        (answered(504, b""), AnswerLost),
        (answered(401, b"<p>"), Misconfigured),
        (answered(302, b"", location="https://elsewhere.test/"), Rejected),
        (answered(404, b"<p>"), Rejected),
        (answered(200, b"<p>a page</p>"), NoToken),
        (answered(200, b"{}"), NoToken),
        (answered(200, b"x" * (LARGEST_ANSWER_BYTES + 1)), NoToken),
        (answered(200, b"", httpx.ReadError("reset")), AnswerLost),
        (answered(200, b'{"access_', httpx.RemoteProtocolError("cut")), AnswerLost),
    ],
)
async def test_an_answer_without_a_token_is_one_of_a_closed_set(provider, wire, answer, outcome):
    """A refusal alone ends a grant; redirects are not followed."""
    route = wire.post(TOKEN_URL).mock(return_value=answer)
    told = await refreshed(provider)
    if isinstance(outcome, type):
        assert isinstance(told, outcome)
    else:
        assert told == outcome
    assert route.call_count == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError, NotSent),
        (httpx.ConnectTimeout, NotSent),
        (httpx.PoolTimeout, NotSent),
        (httpx.ProxyError, NotSent),
        (httpx.ReadError, AnswerLost),
        (httpx.ReadTimeout, AnswerLost),
        (httpx.WriteError, AnswerLost),
        (httpx.CloseError, AnswerLost),
        (httpx.RemoteProtocolError, AnswerLost),
    ],
)
async def test_a_failure_says_whether_the_request_may_have_arrived(provider, wire, error, kind):
    route = wire.post(TOKEN_URL).mock(side_effect=error)
    outcome = await refreshed(provider)
    assert isinstance(outcome, kind)
    assert error.__name__ in outcome.reason
    assert route.call_count == 1


@pytest.mark.parametrize("secret", [OLD, SECRET.reveal()])
async def test_what_was_sent_does_not_come_back_in_an_outcome(provider, wire, secret):
    body = json.dumps({"error": f"invalid_scope_{secret}", "error_description": secret}).encode()
    wire.post(TOKEN_URL).mock(return_value=answered(400, body))
    outcome = await refreshed(provider)
    assert isinstance(outcome, Rejected)
    assert secret not in repr(outcome)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (answered(200, b""), Revoked),
        (answered(503, b"", retry_after="5"), RevocationUnanswered),
        (httpx.ConnectError("no"), RevocationUnanswered),
    ],
)
async def test_a_revocation_names_the_token_and_is_unanswered_where_nobody_knows(
    provider, wire, answer, verdict
):
    route = wire.post(REVOKE_URL).mock(side_effect=[answer])
    assert isinstance(await provider.revoke(RefreshToken(OLD)), verdict)
    form = parse_qs(route.calls.last.request.content.decode())
    assert (form["token"], form["token_type_hint"]) == ([OLD], ["refresh_token"])
