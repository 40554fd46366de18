"""Attacks on the authorization code flow, each with what the attacker really has (RFC 9700)."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from tests.conftest import decide
from tests.service.test_pages_and_callback import begin, status_of

BROWSER = "ignition-broker-browser"


@pytest.fixture
def browsers(broker):
    with (
        httpx.Client(base_url=broker.url, timeout=30) as victim,
        httpx.Client(base_url=broker.url, timeout=30) as attacker,
    ):
        yield victim, attacker


def parameter(url: str, name: str) -> str:
    return parse_qs(urlsplit(url).query)[name][0]


def test_a_code_of_another_authorization_connects_nothing(browsers, broker, fake):
    """Code injection (section 4.5): a good code, unspent, but got by another code challenge."""
    victim, attacker = browsers
    stolen = parameter(decide(victim, begin(victim, broker, "stolen-from")), "code")
    own = decide(attacker, begin(attacker, broker, "injected-into"))
    before = fake.counters()
    page = attacker.get(own.replace(parameter(own, "code"), stolen))
    assert page.status_code == 400
    assert "refused" in page.text
    assert fake.counters() != before, "Ignition was asked, and PKCE told the codes apart"
    assert status_of(broker, "injected-into") == "disconnected"
    assert status_of(broker, "stolen-from") == "disconnected"


def test_the_attackers_callback_connects_nothing_in_the_victims_browser(browsers, broker):
    """Login CSRF (section 4.7): the victim has an authorization of its own, which continues."""
    victim, attacker = browsers
    theirs = decide(victim, begin(victim, broker, "victims"))
    planted = decide(attacker, begin(attacker, broker, "attackers"))
    assert victim.get(planted).status_code == 400
    mixed = re.sub(r"code=[^&]+", f"code={parameter(planted, 'code')}", theirs)
    assert victim.get(mixed).status_code == 400
    for tenant in ("victims", "attackers"):
        assert status_of(broker, tenant) == "disconnected"


def test_a_mark_that_was_tossed_beside_the_browsers_own_connects_nothing(browsers, broker):
    """Cookie tossing: another host of the domain sets the attacker's mark in the victim's browser.
    Over https the prefix keeps it out; without, two marks are none."""
    victim, attacker = browsers
    begin(victim, broker, "tossed-at")
    planted = decide(attacker, begin(attacker, broker, "tossed"))
    mine, theirs = victim.cookies[BROWSER], attacker.cookies[BROWSER]
    for cookies in (
        f"{BROWSER}={mine}; {BROWSER}={theirs}",
        f"{BROWSER}={theirs}; {BROWSER}={mine}",
    ):
        assert httpx.get(planted, headers={"Cookie": cookies}).status_code == 400
    assert status_of(broker, "tossed") == "disconnected"
    assert attacker.get(planted).status_code == 200, "it was good, and was not spent"
