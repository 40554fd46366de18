"""Forms are taken from our own pages alone."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from ignition_broker.web import csrf


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw})


@pytest.mark.parametrize("site", ["cross-site", "same-site", "CROSS-SITE", ""])
def test_a_form_that_another_site_sent_is_forged_whatever_token_it_shows(site):
    with pytest.raises(csrf.FormForged, match="another site"):
        csrf.check(request(sec_fetch_site=site), "token", ["token"])


@pytest.mark.parametrize("shown", ["", "toke", "token2", "TOKEN", "tokén"])
def test_a_form_without_its_pages_token_is_forged(shown):
    with pytest.raises(csrf.FormForged, match="load that again"):
        csrf.check(request(sec_fetch_site="same-origin"), shown, ["token", b"another"])


def test_nothing_is_good_where_no_token_was_given_out():
    with pytest.raises(csrf.FormForged):
        csrf.check(request(), "", [])


@pytest.mark.parametrize("headers", [{}, {"sec_fetch_site": "none"}])
def test_any_of_the_expected_tokens_will_do(headers):
    csrf.check(request(**headers), "token", [b"other", "token"])


def test_a_browsers_token_depends_on_the_key_and_on_the_browser():
    tokens = {csrf.for_browser(key, mark) for key in (b"1", b"2") for mark in ("a", "b")}
    assert len(tokens) == 4
