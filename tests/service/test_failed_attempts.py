"""Guessing is limited per address; callers with a valid key are not, at the same address too."""

from __future__ import annotations

import itertools
import re

import httpx
import pytest

ADDRESSES = itertools.count(1)
GUESSES = itertools.count(1)
LIMIT = 5


@pytest.fixture(scope="module")
def more_settings():
    return {"BROKER_FAILED_ATTEMPTS": str(LIMIT), "BROKER_TRUSTED_PROXIES": "127.0.0.0/8, ::1"}


@pytest.fixture
def address() -> str:
    """As the proxy in front names it; nobody came from there yet."""
    return f"203.0.113.{next(ADDRESSES)}"


def call(broker, key: str, forwarded_for: str, path: str = "/token/nobody") -> httpx.Response:
    """404: the key is good, the tenant unknown."""
    headers = {"Authorization": f"Bearer {key}", "X-Forwarded-For": forwarded_for}
    return httpx.get(broker.url + path, headers=headers)


def guess() -> str:
    """A key that nobody has shown yet."""
    return f"ibk_guess-{next(GUESSES)}"


def exhaust(broker, address: str) -> None:
    statuses = [call(broker, guess(), address).status_code for _ in range(LIMIT)]
    assert statuses == [401] * LIMIT


def test_guessing_is_answered_429_with_a_time_to_wait(broker, address):
    exhaust(broker, address)
    for path in ("/token/nobody", "/proxy/nobody/x", "/forward-auth/nobody", "/admin/tenants"):
        answer = call(broker, guess(), address, path)
        assert answer.status_code == 429, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "urn:ignition-broker:too-many-attempts"
        assert 1 <= int(answer.headers["retry-after"]) <= 60 / LIMIT
    assert answer.headers.get("broker-error") is None
    assert call(broker, guess(), address, "/proxy/nobody/x").headers["broker-error"] == (
        "too-many-attempts"
    )


def test_a_key_in_use_and_the_admin_key_pass_whatever_others_at_the_address_do(broker, address):
    key = broker.make_key(f"at-{address}", ["token"], ["*"])
    assert call(broker, key, address).status_code == 404
    exhaust(broker, address)
    assert call(broker, guess(), address).status_code == 429
    assert call(broker, key, address).status_code == 404
    assert call(broker, broker.admin_key, address).status_code == 404


def test_one_wrong_key_sent_over_and_over_locks_its_address_out_of_nothing(broker, address):
    for _ in range(4 * LIMIT):
        assert call(broker, f"ibk_left-over-{address}", address).status_code == 401
    key = broker.make_key(f"beside-{address}", ["token"], ["*"])
    assert call(broker, key, address).status_code == 404


def test_calls_without_a_key_count_for_nothing(broker, address):
    for _ in range(4 * LIMIT):
        answer = httpx.get(broker.url + "/token/x", headers={"X-Forwarded-For": address})
        assert answer.status_code == 401
    assert call(broker, f"ibk_first-{address}", address).status_code == 401


def test_another_address_is_not_held_back(broker, address):
    exhaust(broker, address)
    assert call(broker, guess(), f"203.0.113.{next(ADDRESSES)}").status_code == 401


def test_what_a_caller_writes_ahead_of_its_own_address_is_not_believed(broker, address):
    for number in range(LIMIT):
        made_up = f"198.51.100.{number}, {address}, 127.0.0.1"
        assert call(broker, guess(), made_up).status_code == 401
    assert call(broker, guess(), f"198.51.100.99, {address}").status_code == 429
    assert call(broker, guess(), f"198.51.100.1:443, {address}:9").status_code == 429


def test_the_sign_in_page_is_limited_too_and_says_so(broker, address):
    headers = {"X-Forwarded-For": address}
    with httpx.Client(base_url=broker.url, headers=headers) as browser:
        shown = browser.get("/login").text
        csrf = re.search(r'name="csrf"\s+value="([^"]*)"', shown)[1]
        for _ in range(LIMIT):
            form = {"key": guess(), "csrf": csrf}
            assert browser.post("/login", data=form).status_code == 401
        refused = browser.post("/login", data={"key": guess(), "csrf": csrf})
        assert refused.status_code == 429
        assert "Too many calls from this address" in refused.text
        assert int(refused.headers["retry-after"]) >= 1
        signed_in = browser.post("/login", data={"key": broker.admin_key, "csrf": csrf})
        assert signed_in.status_code == 303


def test_the_log_names_the_address_once_and_no_key(broker, address):
    exhaust(broker, address)
    for _ in range(3):
        call(broker, guess(), address)
    lines = [line for line in broker.log_text().splitlines() if "attempts_limited" in line]
    assert sum(address in line for line in lines) == 1
    assert "ibk_" not in "".join(lines)


def test_without_trusted_proxies_nobody_names_an_address(broker):
    broker.stop()
    trusted = broker.settings.pop("BROKER_TRUSTED_PROXIES")
    broker.start()
    try:
        statuses = [
            call(broker, guess(), f"203.0.113.{next(ADDRESSES)}").status_code
            for _ in range(LIMIT + 1)
        ]
        assert statuses == [401] * LIMIT + [429]
    finally:
        broker.stop()
        broker.settings["BROKER_TRUSTED_PROXIES"] = trusted
        broker.start()


@pytest.mark.parametrize(
    "value", ["10.0.0.1/8", "proxy.example.com", "0.0.0.0/0", "10.0.0.0/8;::1"]
)
def test_proxies_that_cannot_be_told_are_named_at_the_start(broker, value):
    kept = broker.settings["BROKER_TRUSTED_PROXIES"]
    broker.settings["BROKER_TRUSTED_PROXIES"] = value
    try:
        ended = broker.command("serve")
    finally:
        broker.settings["BROKER_TRUSTED_PROXIES"] = kept
    assert ended.returncode == 2
    assert ended.stderr.startswith("BROKER_TRUSTED_PROXIES: must ")
    assert "example: BROKER_TRUSTED_PROXIES=10.0.0.0/8" in ended.stderr
    assert value not in ended.stderr
