from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ignition_broker.oauth.answers import (
    NotOAuth,
    OAuthError,
    Overloaded,
    judge_token_answer,
    retry_after_seconds,
)
from ignition_broker.oauth.tokens import LONGEST_LIFETIME_SECONDS, TokenAnswer

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def judge(status: int, body: object, headers: dict[str, str] | None = None):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return judge_token_answer(status, headers or {}, raw, now=NOW)


def test_a_token_is_taken_field_by_field():
    answer = judge(
        200,
        {
            "access_token": "a",
            "token_type": "bearer",
            "expires_in": 60,
            "refresh_token": "r",
            "scope": "read",
        },
    )
    assert isinstance(answer, TokenAnswer)
    assert answer.access_token.reveal() == "a"
    assert (answer.token_type, answer.lifetime_seconds, answer.scope) == ("Bearer", 60, "read")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'"token"',
        b"[" * 100_000,
        {"token_type": "Bearer"},
        {"access_token": ""},
        {"access_token": 5},
        {"access_token": "a b"},
        {"access_token": "a\r\nX: y"},
        {"access_token": "é"},
        {"access_token": "a", "token_type": "mac"},
        {"access_token": "a", "refresh_token": 7},
    ],
)
def test_what_is_no_token_is_said_to_be_none(body):
    assert isinstance(judge(200, body), NotOAuth)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("body", [b"", b"<html>", {"error": "invalid_grant"}])
def test_overload_is_told_with_what_the_server_asks(status, body):
    verdict = judge(status, body, {"retry-after": "7"})
    assert verdict == Overloaded(status, 7.0)


@pytest.mark.parametrize("status", [500, 501, 502, 504, 507, 520, 599])
@pytest.mark.parametrize("body", [b"", b"<html>", {"error": "server_error"}, {"error": None}])
def test_behind_any_other_5xx_the_request_may_have_been_carried_out(status, body):
    assert isinstance(judge(status, body, {"retry-after": "7"}), NotOAuth)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_token_that_can_be_read_counts_whatever_the_status(status):
    answer = judge(status, {"access_token": "a", "refresh_token": "r"})
    assert isinstance(answer, TokenAnswer)
    assert answer.refresh_token is not None


@pytest.mark.parametrize("status", [500, 502])
def test_a_refusal_that_can_be_read_is_one_behind_a_5xx_too(status):
    assert judge(status, {"error": "invalid_grant"}) == OAuthError(status, "invalid_grant", "")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("soon", None),
        ("-1", None),
        ("99999999999999999999", 3600.0),
        ("Thu, 01 Jan 2026 00:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2020 00:00:30 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert retry_after_seconds(value, now=NOW) == seconds


def test_an_oauth_error_is_one_whatever_its_4xx():
    verdict = judge(401, {"error": "invalid_client", "error_description": "no\x00pe"})
    assert verdict == OAuthError(401, "invalid_client", "nope")
    assert isinstance(judge(404, b"not here"), NotOAuth)
    assert isinstance(judge(302, b""), NotOAuth)


def test_an_error_with_status_200_is_one_too_unless_a_token_came_with_it():
    assert judge(200, {"error": "invalid_grant"}) == OAuthError(200, "invalid_grant", "")
    assert isinstance(judge(200, {"error": "odd", "access_token": "a"}), TokenAnswer)


@given(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())
)
def test_a_lifetime_is_never_longer_than_a_number_says(expires_in):
    body = json.dumps({"access_token": "a", "expires_in": expires_in}).encode()
    answer = judge(200, body)
    assert isinstance(answer, TokenAnswer)
    assert 0 <= answer.lifetime_seconds <= LONGEST_LIFETIME_SECONDS
    if (
        isinstance(expires_in, int | float)
        and not isinstance(expires_in, bool)
        and (
            expires_in == expires_in  # no NaN
        )
    ):
        assert answer.lifetime_seconds <= max(0, expires_in)


@given(st.integers(100, 599), st.binary(max_size=200))
def test_no_answer_makes_it_raise(status, body):
    judge(status, body)
