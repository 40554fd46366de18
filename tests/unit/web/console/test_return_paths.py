"""A sign-in leads only to pages of this service."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ignition_broker.web.console.return_paths import (
    needs_a_fresh_sign_in,
    own_page,
    sign_in_address,
)


@pytest.mark.parametrize(
    "elsewhere",
    [
        "",
        "https://evil.example",
        "https:evil.example",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/%2f%2fevil.example",
        "%2f%2fevil.example",
        "/%5cevil.example",
        "/.//evil.example",
        "/\t/evil.example",
        "/\r\nLocation: https://evil.example",
        " /",
        "/login",
        "/logout",
        "/docs",
        "/callback?code=x",
        "/login/oidc/callback?code=x",
        "/token/acme",
        "/auth/../docs",
        "javascript:alert(1)",
        "@evil.example",
    ],
)
def test_anything_else_leads_home(elsewhere):
    assert own_page(elsewhere) == "/"


@pytest.mark.parametrize(
    "ours",
    [
        "/",
        "/tenants?after=acme",
        "/tenants?status=connected",
        "/auth?tenant=acme",
        "/disconnect?tenant=acme",
        "/api-keys",
        "/api-keys/new",
        "/api-keys/new?name=svc&tenants=a%2Cb-%2A&paths=GET+%2Fv1%2F%2A%0D%0APOST+%2Fx",
    ],
)
def test_own_pages_are_led_to(ours):
    assert own_page(ours) == ours


@pytest.mark.parametrize(
    ("asked", "led_to"),
    [
        ("/auth?tenant=//evil.example", "/auth"),
        ("/auth?tenant=acme&next=//evil.example", "/auth?tenant=acme"),
        ("/auth?tenant=acme#//evil.example", "/auth"),
        ("/disconnect?tenant=ACME", "/disconnect"),
        ("/?" + "&".join(["after=a"] * 30), "/"),
        ("/api-keys/new?name=\x00", "/api-keys/new"),
        ("/api-keys/new?name=a&paths=" + "%2F" * 600, "/api-keys/new"),
    ],
)
def test_of_a_query_only_what_the_page_knows_is_kept(asked, led_to):
    assert own_page(asked) == led_to


@given(st.text() | st.text("/\\.:@%?#&=\t\r\nevil"))
def test_no_text_leads_to_another_host(text):
    address = own_page(text)
    assert address.startswith("/")
    assert not address.startswith(("//", "/\\"))
    assert address.isascii()
    assert address.isprintable()
    assert urlsplit(address).netloc == ""
    assert own_page(address) == address


def test_what_cannot_be_undone_needs_a_fresh_sign_in():
    assert needs_a_fresh_sign_in("/disconnect?tenant=acme")
    assert needs_a_fresh_sign_in("/api-keys/new")
    assert not needs_a_fresh_sign_in("/api-keys")
    assert not needs_a_fresh_sign_in("/auth?tenant=acme")


def test_the_way_back_is_written_into_the_sign_in():
    assert sign_in_address("/auth?tenant=acme") == "/login?return_to=%2Fauth%3Ftenant%3Dacme"
    assert sign_in_address("//evil.example") == "/login?return_to=%2F"
