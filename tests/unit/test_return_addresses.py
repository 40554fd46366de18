"""Where a link may lead back to."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ignition_broker.return_addresses import (
    ReturnAddressRefused,
    check_return_address,
    origin_of,
    parse_origins,
)
from ignition_broker.settings import SettingsError

APP = "https://app.example.com"
ORIGINS = (APP, "https://app.example.com:8443", "http://localhost:8001")


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        (APP, APP),
        (f"{APP}/", APP),
        (f"{APP}/settings?tab=ignition&x=%20#done", APP),
        (f"{APP}?x=1", APP),
        ("https://app.example.com:8443/a", "https://app.example.com:8443"),
        ("http://localhost:8001/@x", "http://localhost:8001"),
    ],
)
def test_an_address_at_an_origin_of_the_list_is_led_back_to(address, origin):
    assert origin_of(address, ORIGINS) == origin
    assert check_return_address(address, ORIGINS) == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "/settings",
        "//app.example.com/",
        "http://app.example.com/",
        "https://app.example.com.evil.example/",
        "https://app.example.com@evil.example/",
        "https://app.example.com:443/",
        "https://app.example.com:84430/",
        "https://app.example.com\\@evil.example/",
        "https://app.example.com/\\evil.example",
        "https://app.example.com/a b",
        "https://app.example.com/\nx",
        "https://app.example.com/\u202e",
        "https://app.example.com\t/",
        " https://app.example.com/",
        "HTTPS://app.example.com/",
        "https://APP.example.com/",
        "https://evil.example/https://app.example.com/",
        "javascript:https://app.example.com/",
        'https://app.example.com/"><script>',
    ],
)
def test_nothing_but_an_exact_origin_of_the_list_is_led_back_to(address):
    assert origin_of(address, ORIGINS) is None
    with pytest.raises(ReturnAddressRefused, match="add its origin to that setting"):
        check_return_address(address, ORIGINS)


@given(st.text(max_size=40))
def test_whatever_follows_an_origin_names_no_other_host(rest):
    if origin_of(APP + rest, [APP]) is not None:
        parts = urlsplit(APP + rest)
        assert (parts.scheme, parts.netloc) == ("https", "app.example.com")


def test_a_refusal_says_how_to_mend_it():
    with pytest.raises(ReturnAddressRefused, match="BROKER_RETURN_ORIGINS names no origin"):
        check_return_address(APP, ())
    with pytest.raises(ReturnAddressRefused, match="more than 2000 characters"):
        check_return_address(f"{APP}/{'x' * 2000}", ORIGINS)


def test_the_setting_is_a_list_with_commas_or_blanks(load):
    settings = load(BROKER_RETURN_ORIGINS=f" {APP}, http://localhost:8001 http://[::1]:1")
    assert parse_origins(settings.broker_return_origins) == (
        APP,
        "http://localhost:8001",
        "http://[::1]:1",
    )
    assert parse_origins("") == ()


@pytest.mark.parametrize(
    ("origin", "told"),
    [
        (f"{APP}/", "no slash either"),
        ("https://*.example.com", "no wildcard"),
        ("*", "no wildcard"),
        ("null", "must be origins"),
        ("https://App.example.com", "lower case"),
        ("https://u@app.example.com", "must be origins"),
        ("http://app.example.com", "must be https, except for a loopback host"),
        ("https://app.example.com:443", "leave out :443"),
        ("http://localhost:80", "leave out :80"),
        ("https://app.example.com:99999", "no proper host"),
        ("https://[::g]", "must be origins"),
    ],
)
def test_an_origin_that_no_browser_would_send_is_refused(load, origin, told):
    with pytest.raises(SettingsError, match=r"^BROKER_RETURN_ORIGINS: ") as refused:
        load(BROKER_RETURN_ORIGINS=origin)
    assert told in str(refused.value)
    assert "example: BROKER_RETURN_ORIGINS=https://app.example.com" in str(refused.value)
