"""The settings that change what goes over the wire: JSON bodies, Basic, the issuer."""

from __future__ import annotations

import re

import httpx
import pytest
from tests.conftest import decide

ISSUER = "https://ignition.example"


@pytest.fixture(scope="module")
def fake_options():
    return {"issuer": ISSUER}


@pytest.fixture(scope="module")
def more_settings():
    return {
        "IGNITION_CLIENT_AUTH": "client_secret_basic",
        "IGNITION_TOKEN_FORMAT": "json",
        "IGNITION_ISSUER": ISSUER,
    }


def test_connect_and_refresh_with_json_basic_auth_and_an_issuer(broker):
    assert broker.connect("acme").status_code == 200
    with broker.client() as admin:
        first = admin.get("/token/acme").json()["access_token"]
        assert admin.post("/token/acme/refresh").json()["access_token"] != first


@pytest.mark.parametrize("change", [r"iss=[^&]+|iss=https%3A%2F%2Fevil.example", r"&iss=[^&]+|"])
def test_a_wrong_or_missing_issuer_connects_nothing(broker, change):
    wanted, _, replacement = change.partition("|")
    with broker.client() as admin:
        link = admin.post("/admin/tenants/mixed/connect-link").json()["url"]
    with httpx.Client(timeout=30) as browser:
        browser.get(link)
        callback = decide(browser, browser.post(link).headers["location"])
        tampered = re.sub(wanted, replacement, callback)
        assert tampered != callback
        page = browser.get(tampered)
    assert page.status_code == 400
    assert "issuer_mismatch" in page.text
    with broker.client() as admin:
        assert admin.get("/admin/tenants/mixed").json()["status"] == "disconnected"
