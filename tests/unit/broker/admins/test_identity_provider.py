"""Metadata, keys and the code exchange, with providers that behave differently."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
import respx
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey
from tests.unit.values import ManualClock

from ignition_broker.broker.admins.id_tokens import ExpectedToken, IdTokenRefused, judge_id_token
from ignition_broker.broker.admins.identity_provider import (
    AsyncOAuth2Client,
    IdentityProvider,
    SignOnClient,
)
from ignition_broker.broker.errors import IdentityProviderUnavailable, SignOnFailed
from ignition_broker.oauth.tokens import AuthorizationCode, ClientSecret, CodeVerifier

ISSUER = "https://login.example.com/realm"
METADATA = f"{ISSUER}/.well-known/openid-configuration"
JWKS = f"{ISSUER}/jwks"
TOKEN = f"{ISSUER}/token"
GOOD = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize?tenant=x",
    "token_endpoint": TOKEN,
    "jwks_uri": JWKS,
}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def provider(clock):
    client = SignOnClient(
        issuer=ISSUER,
        client_id="broker",
        client_secret=ClientSecret("s3cret/+"),
        redirect_uri="https://broker.example.com/login/oidc/callback",
        scope="openid email",
    )
    return IdentityProvider(client, clock)


@pytest.fixture
def wire():
    with respx.mock(using="httpx", assert_all_called=False) as router:
        yield router


def test_the_client_raises_the_errors_that_are_caught_here():
    """Authlib can be built on a successor of httpx, whose errors would get past us."""
    assert issubclass(AsyncOAuth2Client, httpx.AsyncClient)


async def test_metadata_and_keys_are_held_for_an_hour(provider, wire, clock):
    metadata = wire.get(METADATA).respond(json=GOOD)
    key = RSAKey.generate_key(2048, {"kid": "one"})
    keys = wire.get(JWKS).respond(json=KeySet([key]).as_dict(private=False))
    for _ in range(3):
        await provider.metadata()
        await provider.keys()
    assert (metadata.call_count, keys.call_count) == (1, 1)
    await provider.newest_keys()
    assert (metadata.call_count, keys.call_count) == (1, 2)
    await clock.sleep(3601)
    await provider.keys()
    assert (metadata.call_count, keys.call_count) == (2, 3)


async def test_a_provider_that_is_down_is_asked_once_by_all_who_wait(provider, wire, clock):
    metadata = wire.get(METADATA).respond(503)
    waiting = [provider.metadata() for _ in range(50)]
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(outcome, IdentityProviderUnavailable) for outcome in outcomes)
    assert metadata.call_count == 1
    await clock.sleep(4)
    metadata.respond(json=GOOD)
    assert (await provider.metadata()).token_endpoint == TOKEN


async def test_an_issuer_with_a_slash_at_its_end_is_asked_at_the_same_place(clock, wire):
    issuer = ISSUER + "/"
    client = SignOnClient(issuer, "broker", ClientSecret("s"), "https://b.example/cb", "openid")
    wire.get(METADATA).respond(json={**GOOD, "issuer": issuer})
    assert (await IdentityProvider(client, clock).metadata()).token_endpoint == TOKEN


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"json": {**GOOD, "issuer": ISSUER + "/"}}, "to the letter"),
        ({"json": {**GOOD, "issuer": None}}, "to the letter"),
        ({"json": {name: GOOD[name] for name in ("issuer", "jwks_uri")}}, "lack"),
        ({"json": {**GOOD, "jwks_uri": "http://login.example.com/jwks"}}, "not https"),
        ({"json": {**GOOD, "token_endpoint": "http://login.example.com/token"}}, "not https"),
        ({"json": {**GOOD, "authorization_endpoint": "javascript:alert(1)"}}, "not https"),
        ({"json": {**GOOD, "token_endpoint": 7}}, "lack"),
        ({"json": [GOOD]}, "lack"),
        ({"html": "<p>hello</p>"}, "lack"),
        ({"status_code": 500}, "500"),
        ({"status_code": 302, "headers": {"Location": "https://evil.example/"}}, "302"),
    ],
)
async def test_metadata_that_cannot_be_trusted_are_refused(provider, wire, answer, told):
    wire.get(METADATA).respond(**answer)
    with pytest.raises(IdentityProviderUnavailable, match=told):
        await provider.metadata()


@pytest.mark.parametrize("document", ["", "[]", "{}", '{"keys": []}', '{"keys": [7]}', "null"])
async def test_keys_that_are_none_are_refused(provider, wire, document):
    wire.get(METADATA).respond(json=GOOD)
    wire.get(JWKS).respond(text=document)
    with pytest.raises(IdentityProviderUnavailable, match="JWK set"):
        await provider.keys()


async def test_a_provider_that_cannot_be_reached_is_unavailable(provider, wire):
    wire.get(METADATA).mock(side_effect=httpx.ConnectError("no"))
    with pytest.raises(IdentityProviderUnavailable, match="ConnectError"):
        await provider.metadata()


async def test_the_authorization_url_keeps_the_query_of_its_endpoint(provider, wire):
    wire.get(METADATA).respond(json=GOOD)
    url = await provider.authorization_url(
        state="s", nonce="n", verifier=CodeVerifier("v" * 43), must_authenticate=True
    )
    query = httpx.URL(url).params
    assert query["tenant"] == "x"
    assert (query["prompt"], query["max_age"]) == ("login", "0")
    assert "v" * 43 not in url


@pytest.mark.parametrize(
    ("methods", "is_basic"),
    [
        (None, True),
        (["client_secret_post", "client_secret_basic"], True),
        (["client_secret_post"], False),
    ],
)
async def test_the_client_shows_its_secret_as_the_provider_takes_it(
    provider, wire, methods, is_basic
):
    more = {} if methods is None else {"token_endpoint_auth_methods_supported": methods}
    wire.get(METADATA).respond(json={**GOOD, **more})
    token = wire.post(TOKEN).respond(
        json={"access_token": "a", "token_type": "Bearer", "id_token": "i.d.t"}
    )
    code, verifier = AuthorizationCode("c&d"), CodeVerifier("v" * 43)
    assert await provider.exchange_code(code, verifier) == "i.d.t"
    request = token.calls.last.request
    form = httpx.QueryParams(request.content.decode())
    assert (form["code"], form["code_verifier"]) == ("c&d", "v" * 43)
    assert form["redirect_uri"] == "https://broker.example.com/login/oidc/callback"
    assert ("authorization" in request.headers) is is_basic
    assert form.get("client_secret") == (None if is_basic else "s3cret/+")


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        ({"status_code": 400, "json": {"error": "invalid_grant"}}, SignOnFailed, "invalid_grant"),
        ({"json": {"access_token": "a", "id_token": 7}}, SignOnFailed, "no ID token"),
        ({"status_code": 502, "html": "<p>"}, IdentityProviderUnavailable, "HTTPStatusError"),
        ({"html": "<p>"}, IdentityProviderUnavailable, "not JSON"),
        ({"json": []}, IdentityProviderUnavailable, "not JSON"),
    ],
)
async def test_an_exchange_that_failed_says_why(provider, wire, answer, error, told):
    wire.get(METADATA).respond(json=GOOD)
    wire.post(TOKEN).respond(**answer)
    with pytest.raises(error, match=told):
        await provider.exchange_code(AuthorizationCode("c"), CodeVerifier("v" * 43))


async def test_a_symmetric_key_among_the_keys_signs_nothing(provider, wire):
    shared = OctKey.generate_key(256, {"kid": "shared"})
    wire.get(METADATA).respond(json=GOOD)
    wire.get(JWKS).respond(text=json.dumps({"keys": [shared.as_dict(private=True)]}))
    token = jwt.encode({"alg": "HS256", "kid": "shared"}, {"iss": ISSUER}, shared)
    expected = ExpectedToken(ISSUER, "broker", "n", None)
    with pytest.raises(IdTokenRefused, match="signature"):
        judge_id_token(token, await provider.keys(), expected, groups_claim="groups", now=0.0)
