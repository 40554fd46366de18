"""A sign-in on another host than `REDIRECT_URI`'s is redirected there before it begins."""

from __future__ import annotations

import httpx
import pytest
from tests.conftest import consent
from tests.service.oidc_provider import OidcProvider
from tests.service.test_pages_and_callback import hidden, sign_in, status_of


@pytest.fixture
def elsewhere(broker) -> str:
    return f"http://127.0.0.1:{broker.port}"


@pytest.fixture
def browser(broker):
    with httpx.Client(timeout=30) as client:
        yield client


def link_path(broker, tenant: str) -> str:
    with broker.client() as admin:
        url = admin.post(f"/admin/tenants/{tenant}/connect-link").json()["url"]
    return url.removeprefix(broker.url)


def test_a_link_that_is_opened_elsewhere_leads_to_its_own_host(browser, broker, elsewhere):
    path = link_path(broker, "opened-elsewhere")
    sent = browser.get(elsewhere + path)
    assert sent.status_code == 303
    assert sent.headers["location"].startswith(f"{broker.url}{path}")
    assert sent.headers["cache-control"] == "no-store"
    assert not sent.cookies
    page = browser.get(sent.headers["location"])
    assert page.status_code == 200
    assert consent(browser, browser.post(sent.headers["location"])).status_code == 200
    assert status_of(broker, "opened-elsewhere") == "connected"


@pytest.mark.parametrize("more", [{}, {"X-Forwarded-Host": "localhost"}])
def test_a_click_elsewhere_spends_no_link(browser, broker, elsewhere, more):
    path = link_path(broker, "clicked-elsewhere")
    if more:
        more = {"X-Forwarded-Host": broker.url.removeprefix("http://")}
    sent = browser.post(elsewhere + path, headers=more)
    assert sent.status_code == 303
    assert sent.headers["location"].startswith(f"{broker.url}{path}")
    assert browser.head(elsewhere + path).status_code != 200
    assert browser.get(sent.headers["location"]).status_code == 200, "it is not spent"
    assert consent(browser, browser.post(broker.url + path)).status_code == 200


def test_a_forged_link_leads_nowhere_but_here(browser, broker, elsewhere):
    assert browser.get(elsewhere + "/connect/..%5c").status_code == 400, "needlessly escaped"
    for path in ("/connect/%40evil.example", "/connect/x?next=//evil.example"):
        location = browser.get(elsewhere + path).headers["location"]
        assert location.startswith(f"{broker.url}{path}")
        assert browser.get(location).status_code == 404


def test_auth_elsewhere_leads_to_its_own_host(browser, broker, elsewhere):
    browser.base_url = elsewhere
    sign_in(browser, broker.admin_key)
    sent = browser.get("/auth?tenant=asked-elsewhere")
    assert sent.status_code == 303
    assert sent.headers["location"].startswith(f"{broker.url}/auth?tenant=asked-elsewhere&")
    asked = browser.get(sent.headers["location"])
    assert asked.headers["location"].startswith("/login?"), "the session was the other host's"


def test_the_consoles_form_elsewhere_leads_to_its_own_host(browser, broker, elsewhere):
    browser.base_url = elsewhere
    sign_in(browser, broker.admin_key)
    csrf = hidden(browser.get("/").text, "csrf")
    sent = browser.post("/connect", data={"tenant": "formed-elsewhere", "csrf": csrf})
    assert sent.headers["location"].startswith(f"{broker.url}/auth?tenant=formed-elsewhere&")
    browser.base_url = broker.url
    sign_in(browser, broker.admin_key)
    assert consent(browser, browser.get(sent.headers["location"])).status_code == 200


def test_behind_a_proxy_with_a_host_header_of_its_own_a_link_works(browser, broker):
    """Every request seems to be elsewhere there: it is sent on once, and then believed."""
    path = link_path(broker, "rewritten")
    internal = {"Host": "broker.internal:3000"}
    sent = browser.get(broker.url + path, headers=internal)
    assert sent.status_code == 303
    page = browser.get(sent.headers["location"], headers=internal)
    assert page.status_code == 200
    assert '<form method="post">' in page.text, "it is sent to the address of its page"
    assert consent(browser, browser.post(sent.headers["location"], headers=internal)).is_success
    assert status_of(broker, "rewritten") == "connected"


def test_single_sign_on_elsewhere_leads_to_the_sign_in_page_of_its_own_host(
    idle_broker, browser, elsewhere
):
    oidc = OidcProvider()
    idle_broker.settings |= {
        "BROKER_OIDC_ISSUER": oidc.issuer,
        "BROKER_OIDC_CLIENT_ID": oidc.client_id,
        "BROKER_OIDC_CLIENT_SECRET": oidc.client_secret,
        "BROKER_OIDC_ADMIN_GROUPS": "broker-admins",
    }
    idle_broker.stop()
    idle_broker.start()
    try:
        form = browser.get(f"{elsewhere}/login?return_to=/api-keys").text
        data = {name: hidden(form, name) for name in ("csrf", "return_to")}
        sent = browser.post(f"{elsewhere}/login/oidc", data=data)
        where = f"{idle_broker.url}/login?return_to=%2Fapi-keys&moved=1"
        assert sent.headers["location"] == where
        internal = {"Host": "broker.internal:3000"}
        form = browser.get(where, headers=internal).text
        data = {name: hidden(form, name) for name in ("csrf", "return_to", "moved")}
        begun = browser.post(f"{idle_broker.url}/login/oidc", data=data, headers=internal)
        assert begun.headers["location"].startswith(oidc.issuer)
    finally:
        oidc.hang_up()
