from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ignition_broker.oauth.answers import (
    NotOAuth,
    OAuthError,
    Overloaded,
    judge_token_answer,
)
from ignition_broker.oauth.tokens import (
    LONGEST_LIFETIME_SECONDS,
    RefreshToken,
    RefreshTokenOnly,
    TokenAnswer,
)
from ignition_broker.rate_limits import retry_after_seconds

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def judge(status: int, body: object, headers: dict[str, str] | None = None):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return judge_token_answer(status, headers or {}, raw, now=NOW)


def test_each_field_of_a_token_answer_is_checked():
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
    ],
)
def test_an_answer_without_a_token_is_no_token_answer(body):
    assert isinstance(judge(200, body), NotOAuth)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("body", [b"", b"<html>", {"error": "invalid_grant"}])
def test_overload_carries_the_servers_retry_after(status, body):
    verdict = judge(status, body, {"retry-after": "7"})
    assert verdict == Overloaded(status, 7.0)


@pytest.mark.parametrize("status", [500, 501, 502, 504, 507, 520, 599])
@pytest.mark.parametrize("body", [b"", b"<html>", {"error": None}])
def test_after_any_other_5xx_the_request_may_have_been_carried_out(status, body):
    assert isinstance(judge(status, body, {"retry-after": "7"}), NotOAuth)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_token_that_can_be_read_counts_whatever_the_status(status):
    answer = judge(status, {"access_token": "a", "refresh_token": "r"})
    assert isinstance(answer, TokenAnswer)
    assert answer.refresh_token is not None


@pytest.mark.parametrize("status", [500, 502])
def test_a_readable_refusal_counts_with_a_5xx_too(status):
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


def test_an_oauth_error_counts_with_any_4xx():
    verdict = judge(401, {"error": "invalid_client", "error_description": "no\x00pe"})
    assert verdict == OAuthError(401, "invalid_client", "nope")
    assert isinstance(judge(404, b"not here"), NotOAuth)
    assert isinstance(judge(302, b""), NotOAuth)


def test_an_error_with_status_200_counts_unless_a_token_came_with_it():
    assert judge(200, {"error": "invalid_grant"}) == OAuthError(200, "invalid_grant", "")
    assert isinstance(judge(200, {"error": "odd", "access_token": "a"}), TokenAnswer)


BEARER_LABELS = (
    *("bearer", "Bearer ", " BEARER", "BearerToken", "bearer_token", "Bearer Token", ["Bearer"]),
    *("JWT", "jwt", "access_token", "OAuth", "OAuth2", "", None, 5, []),
)


@pytest.mark.parametrize("token_type", BEARER_LABELS)
def test_a_bearer_token_is_recognised_under_any_label(token_type):
    answer = judge(200, {"access_token": "a", "refresh_token": "r", "token_type": token_type})
    assert isinstance(answer, TokenAnswer)
    assert answer.token_type == "Bearer"


@pytest.mark.parametrize("token_type", ["DPoP", "mac", "pop", "N_A", "hotp"])
def test_another_type_is_named_and_its_refresh_token_kept(token_type):
    fields = {"access_token": "secret-token", "token_type": token_type}
    answer = judge(200, fields | {"refresh_token": "r"})
    assert isinstance(answer, RefreshTokenOnly)
    assert answer.refresh_token.reveal() == "r"
    assert f"token_type is {token_type}" in answer.reason
    assert token_type in judge(200, fields).reason


@pytest.mark.parametrize(
    "token_type", ["secret-token", "x-secret-token-x", "cret-tok", "two words", "a\nb", "m" * 99]
)
def test_a_type_that_may_be_a_token_is_not_named(token_type):
    answer = judge(200, {"access_token": "secret-token", "token_type": token_type})
    assert "something else" in answer.reason


@pytest.mark.parametrize("absent", [None, "", " ", "null", "None", "undefined", False, 0, [], {}])
def test_an_invalid_refresh_token_does_not_replace_the_old_one(absent):
    answer = judge(200, {"access_token": "a", "refresh_token": absent})
    assert isinstance(answer, TokenAnswer)
    assert answer.refresh_token is None


def test_a_refresh_token_that_cannot_be_sent_is_ignored():
    answer = judge(200, b'{"access_token": "a", "refresh_token": "\\ud800"}')
    assert isinstance(answer, TokenAnswer)
    assert (answer.refresh_token, answer.flaws) == (None, ("refresh_token is malformed",))


@pytest.mark.parametrize(
    ("scope", "taken"),
    [("a b", "a b"), (["a", "b"], "a b"), (["a", 7], "a"), ([], ""), (7, None), (None, None)],
)
def test_a_scope_is_a_text_or_a_list(scope, taken):
    assert judge(200, {"access_token": "a", "scope": scope}).scope == taken


@pytest.mark.parametrize(
    "body",
    [
        b"error=invalid_grant&error_description=gone+away",
        b'{"error": {"code": "invalid_grant", "message": "gone away"}}',
        b'{"error": [{"code": "invalid_grant"}]}',
        b'{"error": true, "error_code": "invalid_grant"}',
        b'{"data": {"error": "invalid_grant"}}',
        b'[{"error": "invalid_grant"}]',
        b'{"Error": "invalid_grant"}',
        b'{"error": "invalid_grant",}',
        b'{"code": "invalid_grant"}',
    ],
)
def test_an_error_is_found_wherever_it_was_put(body):
    verdict = judge(400, body)
    assert isinstance(verdict, OAuthError)
    assert verdict.error == "invalid_grant"


def test_a_code_beside_a_success_is_no_error():
    answer = judge(200, {"code": "OK", "data": {"access_token": "a"}})
    assert isinstance(answer, TokenAnswer)


@pytest.mark.parametrize(
    "page",
    [
        b'<html><script>var session = {"access_token": "a", "refresh_token": "r"}</script>',
        b'<!doctype html>\n<p>{"error": "invalid_grant"}</p>',
        b'Our API answers {"access_token": "a"} when all is well.',
        b"body{color:red}",
        b"name=value&error_page=1",
    ],
)
def test_nothing_is_read_out_of_an_html_page(page):
    assert isinstance(judge(200, page), NotOAuth)
    assert isinstance(judge(403, page), NotOAuth)


def test_a_refresh_token_repeated_in_an_error_is_not_new():
    raw = json.dumps({"error": "invalid_grant", "refresh_token": "old"}).encode()

    def judged(sent: str):
        return judge_token_answer(400, {}, raw, now=NOW, sent=[RefreshToken(sent)])

    assert isinstance(judged("old"), OAuthError)
    assert isinstance(judged("older"), RefreshTokenOnly)


WHOLE = b'{"refresh_token": "r\\"2", "expires_in": 3600, "access_token": "a", "scope": "x"}'


@pytest.mark.parametrize("length", range(len(WHOLE)))
def test_only_complete_values_of_a_truncated_answer_are_used(length):
    verdict = judge_token_answer(200, {}, WHOLE[:length], now=NOW, is_whole=False)
    has_refresh_token = length >= WHOLE.index(b",")
    has_access_token = length >= WHOLE.index(b', "scope"')
    if has_access_token:
        assert isinstance(verdict, TokenAnswer)
        assert verdict.access_token.reveal() == "a"
        assert verdict.lifetime_seconds == 3600
        assert verdict.refresh_token.reveal() == 'r"2'
    elif has_refresh_token:
        assert isinstance(verdict, RefreshTokenOnly)
        assert verdict.refresh_token.reveal() == 'r"2'
    else:
        assert isinstance(verdict, NotOAuth)


def test_an_error_in_a_truncated_answer_counts_if_its_object_is_complete():
    def judged(raw: bytes):
        return judge_token_answer(400, {}, raw, now=NOW, is_whole=False)

    assert isinstance(judged(b'{"error": "invalid_grant"}'), OAuthError)
    assert isinstance(judged(b'{"error": "invalid_grant", "err'), NotOAuth)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_prefix_or_ending_makes_it_raise(before, behind):
    judge(200, before + b'{"access_token": "a", "refresh_token": "r"}' + behind)


def test_a_hostile_megabyte_is_judged_in_time():
    began = time.monotonic()
    for piece in (b'{"a":', b'{"refresh_token":"', b'{"\\', b"[", b'"x":"\\"', b"a=b&"):
        judge(200, piece * ((1 << 20) // len(piece)))
    assert time.monotonic() - began < 10


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
