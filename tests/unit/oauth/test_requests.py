from __future__ import annotations

import base64
import hashlib
import json
import pickle
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from ignition_broker.oauth.callback import (
    EXPECT_NO_ISSUER,
    CallbackError,
    judge_callback,
    state_of,
)
from ignition_broker.oauth.pkce import code_challenge, new_code_verifier
from ignition_broker.oauth.requests import (
    authorization_url,
    client_secret_basic,
    client_secret_post,
    code_exchange_request,
    refresh_request,
    revocation_request,
)
from ignition_broker.oauth.tokens import (
    AccessToken,
    AuthorizationCode,
    ClientSecret,
    CodeVerifier,
    RefreshToken,
)

POST = client_secret_post("me", ClientSecret("s3cret"))


def test_the_challenge_is_that_of_rfc_7636_appendix_b():
    verifier = CodeVerifier("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    assert code_challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    fresh = new_code_verifier()
    assert len(fresh.reveal()) == 43
    assert hashlib.sha256(fresh.reveal().encode()).digest() == base64.urlsafe_b64decode(
        code_challenge(fresh) + "="
    )


def test_the_authorization_url_keeps_a_query_that_is_there():
    url = authorization_url(
        "https://i.example/authorize?audience=x",
        client_id="me",
        redirect_uri="https://b.example/callback?a=b",
        scope="read write",
        state="st",
        verifier=new_code_verifier(),
    )
    query = parse_qs(urlsplit(url).query)
    assert query["audience"] == ["x"]
    assert query["redirect_uri"] == ["https://b.example/callback?a=b"]
    assert query["scope"] == ["read write"]


def test_form_and_json_bodies_hold_the_same():
    def request(body_format):
        return code_exchange_request(
            "https://i.example/token",
            code=AuthorizationCode("c&d"),
            redirect_uri="https://b.example/callback",
            verifier=CodeVerifier("v"),
            authenticate=POST,
            body_format=body_format,
        )

    form, as_json = request("form"), request("json")
    assert dict(parse_qsl(form.body.decode())) == json.loads(as_json.body)
    assert json.loads(as_json.body)["client_secret"] == "s3cret"
    assert form.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert "s3cret" not in repr(form)


def test_basic_form_encodes_both_parts_and_leaves_the_body_alone():
    request = refresh_request(
        "https://i.example/token",
        refresh_token=RefreshToken("r"),
        authenticate=client_secret_basic("a:b", ClientSecret("c d/é")),
        body_format="form",
    )
    decoded = base64.b64decode(request.headers["Authorization"].removeprefix("Basic "))
    assert decoded == b"a%3Ab:c+d%2F%C3%A9"
    assert b"client" not in request.body


def test_a_revocation_is_always_a_form():
    request = revocation_request(
        "https://i.example/revoke", token=RefreshToken("r"), authenticate=POST
    )
    assert dict(parse_qsl(request.body.decode()))["token_type_hint"] == "refresh_token"
    access = revocation_request(
        "https://i.example/revoke", token=AccessToken("a"), authenticate=POST
    )
    assert dict(parse_qsl(access.body.decode()))["token_type_hint"] == "access_token"


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{0!r:>40}".format])
def test_a_secret_is_masked_wherever_it_is_printed(show):
    assert "hunter2" not in show(AccessToken("hunter2"))
    with pytest.raises(TypeError):
        pickle.dumps(AccessToken("hunter2"))


def test_the_issuer_is_judged_before_anything_else():
    query = [("error", "access_denied"), ("iss", "https://evil.example")]
    verdict = judge_callback(query, expected_issuer="https://i.example")
    assert isinstance(verdict, CallbackError)
    assert verdict.error == "issuer_mismatch"


@pytest.mark.parametrize(
    "query",
    [[], [("code", "")], [("code", "a"), ("code", "b")], [("error", "x"), ("code", "a")]],
)
def test_a_callback_without_one_clear_code_is_an_error(query):
    verdict = judge_callback(query, expected_issuer=EXPECT_NO_ISSUER)
    assert isinstance(verdict, CallbackError)


@pytest.mark.parametrize(
    "query",
    [
        [("error", ""), ("code", "a")],
        [("code", "a"), ("error", ""), ("error_description", ""), ("error", "")],
        [("code", ""), ("code", "a")],
        [("iss", ""), ("code", "a"), ("iss", "https://i.example")],
    ],
)
def test_a_parameter_without_a_value_counts_as_not_sent(query):
    """RFC 6749 section 3.1."""
    expected = "https://i.example" if ("iss", "") in query else EXPECT_NO_ISSUER
    verdict = judge_callback(query, expected_issuer=expected)
    assert isinstance(verdict, AuthorizationCode)
    assert verdict.reveal() == "a"


@pytest.mark.parametrize("errors", [("", "x"), ("x", ""), ("x", "x"), ("x", "y")])
def test_an_error_beside_a_code_counts_however_often_it_is_sent(errors):
    query = [("code", "a"), *(("error", error) for error in errors)]
    verdict = judge_callback(query, expected_issuer=EXPECT_NO_ISSUER)
    assert isinstance(verdict, CallbackError)
    assert verdict.error == "x"


def test_a_state_sent_twice_is_ignored():
    assert state_of([("state", "a"), ("state", "")]) == "a"
    assert state_of([("state", "a")]) == "a"
    assert state_of([("state", "a"), ("state", "b")]) is None
