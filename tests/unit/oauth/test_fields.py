"""Single fields of a token endpoint's answer, as providers really send them."""

from __future__ import annotations

import pytest

from ignition_broker.oauth import fields


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (3600, 3600),
        ("3600", 3600),
        (3599.9, 3599),
        (0, 0),
        (-5, 0),
        (None, None),
        (True, None),
        ("soon", None),
        (float("nan"), None),
        (10**400, 365 * 86400),
    ],
)
def test_a_lifetime_is_never_longer_than_what_was_sent(sent, read):
    assert fields.lifetime_seconds(sent) == read


@pytest.mark.parametrize(
    "name", ["refresh_token_expires_in", "x_refresh_token_expires_in", "refresh_expires_in"]
)
def test_the_refresh_tokens_lifetime_is_found_under_every_name(name):
    assert fields.refresh_lifetime_seconds({name: "86400"}) == 86400
    assert fields.refresh_lifetime_seconds({name: 0}) is None


@pytest.mark.parametrize(
    "sent",
    [
        {"error": "invalid_grant"},
        {"error": ["invalid_grant"]},
        {"error": {"code": "invalid_grant"}},
        {"error_code": "invalid_grant"},
    ],
)
def test_an_error_code_is_found_wherever_it_stands(sent):
    assert fields.error_code(sent, 400) == "invalid_grant"


def test_a_code_in_a_successful_answer_is_no_error():
    assert fields.error_code({"code": "0"}, 200) == ""


def test_scopes_in_a_list_are_joined():
    assert fields.scope_of(["read", "write", 7]) == "read write"


@pytest.mark.parametrize("token", ["", "with blank", "new\nline", "umlaut\u00fc"])
def test_a_token_that_no_header_can_carry_is_told(token):
    assert not fields.is_header_safe(token)
