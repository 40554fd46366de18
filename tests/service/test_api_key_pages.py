"""API keys in the console."""

from __future__ import annotations

import re
from html import unescape

import httpx
import pytest
from tests.conftest import sha256, sql
from tests.service.test_pages_and_callback import hidden, sign_in

SESSION = "ignition-broker-session"


@pytest.fixture
def browser(broker):
    with httpx.Client(base_url=broker.url, timeout=30) as client:
        sign_in(client, broker.admin_key)
        yield client


def create(browser: httpx.Client, **fields: object) -> httpx.Response:
    csrf = hidden(browser.get("/api-keys").text + browser.get("/").text, "csrf")
    return browser.post("/api-keys/new", data={"csrf": csrf, **fields})


def shown_key(page: httpx.Response) -> str:
    found = re.search(r"ibk_[A-Za-z0-9_-]{43}", page.text)
    assert found is not None, page.text
    return found[0]


def test_a_key_is_made_shown_once_and_revoked(browser, broker):
    broker.connect("acme")
    page = create(
        browser,
        name="reports",
        scopes="proxy",
        tenants="acme, beta-*",
        paths="GET /v1/me\r\n\r\n  GET /v1/x/* ",
        days="30",
    )
    assert page.status_code == 200
    assert page.headers["cache-control"] == "no-store"
    key = shown_key(page)
    with broker.client(key) as service, broker.client() as admin:
        assert service.get("/proxy/acme/v1/me").status_code == 200
        assert service.get("/proxy/acme/v1/other").status_code == 403
        (row,) = admin.get("/admin/api-keys").json()["api_keys"]
        assert row["tenants"] == ["acme", "beta-*"]
        assert row["paths"] == ["GET /v1/me", "GET /v1/x/*"]
        assert row["expires_at"] is not None
        event = admin.get("/admin/audit").json()["events"][0]
        assert (event["action"], event["actor"]) == ("api_key_create", "bootstrap-admin")
        listed = browser.get("/api-keys").text
        assert "reports" in listed
        assert key not in listed
        data = {"name": "reports", "csrf": hidden(listed, "csrf")}
        assert browser.post("/api-keys/revoke", data=data).headers["location"] == "/api-keys"
        assert service.get("/proxy/acme/v1/me").status_code == 401
        assert browser.post("/api-keys/revoke", data=data).status_code == 404


def test_an_invalid_key_form_comes_back_with_errors_and_what_was_typed(browser, broker):
    broker.make_key("taken", ["token"], ["*"])
    wrong = [
        ({"name": "a b", "scopes": "token", "tenants": "*"}, 422, "name:"),
        ({"name": "x", "tenants": "*"}, 422, "scopes:"),
        ({"name": "x", "scopes": "token"}, 422, "tenants:"),
        ({"name": "x", "scopes": "root", "tenants": "*"}, 422, "scopes:"),
        ({"name": "x", "scopes": "token", "tenants": "A"}, 422, "tenants:"),
        ({"name": "x", "scopes": "token", "tenants": "*", "days": "9"}, 422, "days:"),
        ({"name": "x", "scopes": "proxy", "tenants": "*", "paths": "GET x"}, 422, "paths:"),
        ({"name": "taken", "scopes": "token", "tenants": "*"}, 409, "taken"),
    ]
    for fields, status, told in wrong:
        page = create(browser, **fields)
        assert page.status_code == status
        alert = re.search(r'role="alert">([^<]*)<', page.text)
        assert alert is not None
        assert told in unescape(alert[1])
        assert f'value="{fields["name"]}"' in page.text
    page = create(browser, name='"><script>', scopes="token", tenants="<b>", paths="</textarea><i>")
    assert page.status_code == 422
    for markup in ("<script>", "<b>", "</textarea><i>"):
        assert markup not in page.text


def test_a_new_sign_in_is_asked_for_and_what_was_typed_comes_back(
    browser, broker, postgres, database_url
):
    hashed = sha256(browser.cookies[SESSION])
    sql(
        postgres,
        database_url,
        "UPDATE sessions SET authenticated_at = now() - interval '11 minutes' "
        f"WHERE token_hash = '\\x{hashed}'",
    )
    assert browser.get("/api-keys").status_code == 200
    assert browser.get("/api-keys/new").headers["location"].startswith("/login?return_to=")
    typed = {"name": "typed", "tenants": "acme", "paths": "GET /a\r\nPOST /b"}
    asked = create(browser, scopes=["proxy"], days="never", **typed)
    assert asked.status_code == 303
    form = browser.get(asked.headers["location"]).text
    data = {name: unescape(hidden(form, name)) for name in ("csrf", "return_to")}
    answer = browser.post("/login", data={**data, "key": broker.admin_key})
    page = browser.get(answer.headers["location"])
    assert 'value="typed"' in page.text
    assert "GET /a\r\nPOST /b</textarea>" in page.text
    assert re.findall(r'value="(\w+)" checked', page.text) == ["proxy"]
    assert re.findall(r'value="(\w+)" selected', page.text) == ["never"]
    with broker.client() as admin:
        names = {row["name"] for row in admin.get("/admin/api-keys").json()["api_keys"]}
    assert "typed" not in names


def test_nobody_sees_the_pages_signed_out(broker):
    for path in ("/api-keys", "/api-keys/new"):
        answer = httpx.get(broker.url + path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login?return_to=%2Fapi-keys")
