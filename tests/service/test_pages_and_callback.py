"""Pages over HTTP: sign-in, CSRF, and every way in which a callback must fail."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from tests.conftest import consent, decide, sql


def hidden(html: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', html)
    assert found is not None, html
    return found[1]


@pytest.fixture
def browser(broker):
    with httpx.Client(base_url=broker.url, timeout=30) as client:
        yield client


def sign_in(browser: httpx.Client, key: str) -> httpx.Response:
    form = browser.get("/login").text
    return browser.post("/login", data={"key": key, "csrf": hidden(form, "csrf"), "return_to": "/"})


def begin(browser: httpx.Client, broker, tenant: str) -> str:
    sign_in(browser, broker.admin_key)
    answer = browser.get(f"/auth?tenant={tenant}")
    assert answer.status_code == 303
    return answer.headers["location"]


def status_of(broker, tenant: str) -> str:
    with broker.client() as admin:
        return admin.get(f"/admin/tenants/{tenant}").json()["status"]


def test_auth_asks_for_the_admin_key_then_sends_to_ignition_with_state_and_pkce(browser, broker):
    asked = browser.get("/auth?tenant=acme")
    assert asked.status_code == 303
    assert asked.headers["location"].startswith("/login?return_to=")
    url = begin(browser, broker, "acme")
    query = parse_qs(urlsplit(url).query)
    assert query["code_challenge_method"] == ["S256"]
    assert query["redirect_uri"] == [broker.settings["REDIRECT_URI"]]
    assert len(query["state"][0]) >= 22
    page = browser.get(decide(browser, url))
    assert page.status_code == 200
    assert status_of(broker, "acme") == "connected"


def test_a_wrong_key_or_a_service_key_does_not_sign_in(browser, broker):
    assert sign_in(browser, "wrong").status_code == 401
    assert sign_in(browser, broker.make_key("svc", ["token"], ["*"])).status_code == 401
    assert browser.get("/").headers["location"] == "/login"


def test_the_session_cookie_is_http_only_and_lax(browser, broker):
    cookie = sign_in(browser, broker.admin_key).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert broker.admin_key not in cookie


def test_forms_without_their_token_are_refused(browser, broker):
    assert browser.post("/login", data={"key": broker.admin_key}).status_code == 400
    sign_in(browser, broker.admin_key)
    assert browser.post("/disconnect", data={"tenant": "acme"}).status_code == 400
    assert browser.post("/connect", data={"tenant": "acme", "csrf": "x"}).status_code == 400


@pytest.mark.parametrize("elsewhere", ["https://evil.example", "//evil.example", "/\\evil.example"])
def test_sign_in_leads_nowhere_else(browser, broker, elsewhere):
    form = browser.get("/login", params={"return_to": elsewhere}).text
    data = {"key": broker.admin_key, "csrf": hidden(form, "csrf"), "return_to": elsewhere}
    assert browser.post("/login", data=data).headers["location"] == "/"


def test_the_console_lists_connects_and_disconnects(browser, broker):
    sign_in(browser, broker.admin_key)
    csrf = hidden(browser.get("/").text, "csrf")
    page = consent(browser, browser.post("/connect", data={"tenant": "shown", "csrf": csrf}))
    assert page.status_code == 200
    listed = browser.get("/").text
    assert "shown" in listed
    assert "Reconnect" in listed
    answer = browser.post("/disconnect", data={"tenant": "shown", "csrf": csrf})
    assert answer.status_code == 303
    assert status_of(broker, "shown") == "disconnected"


def test_a_replayed_callback_connects_nothing(browser, broker, fake):
    """Where it succeeded, the browser that brought it sees that again; nobody else does."""
    callback = decide(browser, begin(browser, broker, "replay"))
    assert browser.get(callback).status_code == 200
    with broker.client() as admin:
        before = admin.get("/admin/tenants/replay").json()
    counters = fake.counters()
    again = browser.get(callback)
    assert again.status_code == 200
    assert "replay is connected" in again.text
    with httpx.Client() as stranger:
        assert stranger.get(callback).status_code == 400
        mark = {"Cookie": f"ignition-broker-browser={'A' * 43}"}
        assert stranger.get(callback, headers=mark).status_code == 400
    assert fake.counters() == counters, "no code is sent twice"
    with broker.client() as admin:
        assert admin.get("/admin/tenants/replay").json() == before


def test_a_callback_in_another_browser_connects_nothing_and_spends_nothing(browser, broker):
    callback = decide(browser, begin(browser, broker, "elsewhere"))
    with httpx.Client() as stranger:
        assert stranger.get(callback).status_code == 400
    assert status_of(broker, "elsewhere") == "disconnected"
    assert browser.get(callback).status_code == 200


def test_a_wrong_state_connects_nothing(browser, broker):
    callback = decide(browser, begin(browser, broker, "wrongstate"))
    wrong = re.sub(r"state=[^&]+", "state=" + "A" * 43, callback)
    assert browser.get(wrong).status_code == 400
    assert status_of(broker, "wrongstate") == "disconnected"


def test_an_expired_state_connects_nothing(browser, broker, postgres, database_url):
    callback = decide(browser, begin(browser, broker, "late"))
    statement = "UPDATE authorizations SET expires_at = now() - interval '1 second'"
    sql(postgres, database_url, statement)
    page = browser.get(callback)
    assert page.status_code == 400
    assert "too long" in page.text
    assert status_of(broker, "late") == "disconnected"


def test_a_denial_is_told_and_markup_in_it_is_escaped(browser, broker):
    callback = decide(browser, begin(browser, broker, "denied"), approve="deny")
    assert "error=access_denied" in callback
    markup = "error_description=%3Cscript%3Ealert(1)%3C/script%3E"
    marked = re.sub(r"error_description=[^&]*", markup, callback)
    assert marked != callback
    page = browser.get(marked)
    assert page.status_code == 400
    assert "access_denied" in page.text
    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text
    assert status_of(broker, "denied") == "disconnected"


def test_a_refused_code_connects_nothing(browser, broker):
    callback = decide(browser, begin(browser, broker, "badcode"))
    page = browser.get(re.sub(r"code=[^&]+", "code=nonsense", callback))
    assert page.status_code == 400
    assert status_of(broker, "badcode") == "disconnected"


def test_pages_run_no_script_and_are_not_framed(browser):
    page = browser.get("/login")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert browser.get("/style.css").headers["content-type"].startswith("text/css")
