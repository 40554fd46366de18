"""Security headers on every page and error, with https."""

from __future__ import annotations

import re

import httpx
import pytest
from tests.service.test_pages_and_callback import hidden


@pytest.fixture(scope="module")
def more_settings(callback_port):
    return {
        "REDIRECT_URI": "https://broker.example.com/callback",
        "BROKER_OIDC_ISSUER": f"http://localhost:{callback_port}/nobody-answers",
        "BROKER_OIDC_CLIENT_ID": "broker",
        "BROKER_OIDC_CLIENT_SECRET": "not-used-here",
        "BROKER_OIDC_ADMIN_GROUPS": "admins",
    }


PATHS = [
    "/",
    "/login",
    "/login?return_to=//evil.example",
    "/login/oidc/callback?error=x",
    "/login/oidc",
    "/callback?code=x&state=y",
    "/connect/forged",
    "/api-keys",
    "/api-keys/new",
    "/disconnect?tenant=acme",
    "/auth?tenant=acme",
    "/style.css",
    "/brand.css",
    "/brand/logo",
    "/connect.js",
    "/connect-end.js",
    "/no/such/page",
    "/admin/tenants",
    "/docs",
    "/docs.js",
    "/openapi.json",
]


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_bears_the_headers(broker, path):
    answer = httpx.get(broker.url + path)
    headers = answer.headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "base-uri 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    # A redirect shows nothing, and a link's page may keep its opener: test_connect_links.
    is_link_moved = path.startswith("/connect/") and answer.status_code == 303
    opener = "unsafe-none" if is_link_moved else "same-origin"
    assert headers.get_list("cross-origin-opener-policy") == [opener]
    assert headers["strict-transport-security"] == "max-age=31536000"
    if "text/html" in headers.get("content-type", ""):
        assert headers["cache-control"] == "no-store"
        assert re.findall(r"<script(?![^>]* src=)|<style|\son\w+=|javascript:", answer.text) == []


def test_only_the_docs_run_scripts_and_those_are_fixed(broker):
    for path in ("/login", "/docs/", "/docsx", "/connect/docs"):
        policy = httpx.get(broker.url + path).headers["content-security-policy"]
        assert "script-src" not in policy
    page = httpx.get(f"{broker.url}/docs").text
    elsewhere = re.findall(r"<(?:script|link)[^>]*https:[^>]*>", page)
    assert len(elsewhere) == 2
    assert all('integrity="sha384-' in element for element in elsewhere)


def test_over_https_every_cookie_is_the_hosts_own(broker):
    """Sent here by hand, as a browser would over TLS."""
    shown = httpx.get(f"{broker.url}/login")
    mark = shown.headers["set-cookie"].partition(";")[0]
    data = {"key": broker.admin_key, "csrf": hidden(shown.text, "csrf")}
    signed_in = httpx.post(f"{broker.url}/login", data=data, headers={"Cookie": mark})
    assert signed_in.status_code == 303
    begun = httpx.get(f"{broker.url}/login/oidc/callback?code=x&state=y")
    for answer in (shown, signed_in, begun):
        (cookie,) = answer.headers.get_list("set-cookie")
        assert cookie.startswith("__Host-ignition-broker-")
        for attribute in ("; HttpOnly", "; Path=/", "; SameSite=lax", "; Secure"):
            assert attribute in cookie
        assert "domain" not in cookie.lower()
    session = signed_in.headers["set-cookie"].partition(";")[0]
    assert httpx.get(f"{broker.url}/", headers={"Cookie": session}).status_code == 200
    bare = session.removeprefix("__Host-")
    assert httpx.get(f"{broker.url}/", headers={"Cookie": bare}).status_code == 303


def test_a_provider_that_is_down_from_the_start_leaves_the_key(broker):
    shown = httpx.get(f"{broker.url}/login")
    mark = shown.headers["set-cookie"].partition(";")[0]
    data = {"csrf": hidden(shown.text, "csrf")}
    answer = httpx.post(f"{broker.url}/login/oidc", data=data, headers={"Cookie": mark})
    assert answer.status_code == 503
    assert "identity provider" in answer.text
    assert 'id="key"' in answer.text
