"""Promise 4: the actual secrets of a whole life of a tenant, searched for wherever they may turn
up. The log is at DEBUG."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from tests.conftest import decide, sql

from ignition_broker.cipher import Cipher


@pytest.fixture(scope="module")
def more_settings():
    return {"PYTHONFAULTHANDLER": "1"}


@pytest.fixture(scope="module")
def refresh_tokens(broker, postgres, database_url):
    """Every refresh token that the tenant has, read as only the broker can."""
    cipher = Cipher([broker.settings["BROKER_ENCRYPTION_KEYS"]])

    def current(tenant: str) -> str:
        statement = f"SELECT encode(refresh_token, 'hex') FROM grants WHERE tenant_id = '{tenant}'"
        sealed = bytes.fromhex(sql(postgres, database_url, statement))
        return cipher.decrypt(tenant, "refresh_token", sealed)

    return current


@pytest.fixture(scope="module")
def life(broker, fake, refresh_tokens):
    """What was secret in it, and every body that an error showed."""
    secrets = {
        "client secret": fake.options.client_secret,
        "admin key": broker.admin_key,
        "encryption key": broker.settings["BROKER_ENCRYPTION_KEYS"],
        "database password": urlsplit(broker.settings["DATABASE_URL"]).password,
    }
    bodies = []
    with broker.client() as admin, httpx.Client(timeout=30) as browser:
        link = admin.post("/admin/tenants/secretive/connect-link").json()["url"]
        secrets["connect link"] = link.rpartition("/")[2]
        location = browser.post(link).headers["location"]
        secrets["state"] = parse_qs(urlsplit(location).query)["state"][0]
        callback = decide(browser, location)
        secrets["code"] = parse_qs(urlsplit(callback).query)["code"][0]
        secrets["browser mark"] = next(iter(browser.cookies.values()))
        assert browser.get(callback).status_code == 200
        bodies.append(browser.get(callback).text)
        secrets["first access token"] = admin.get("/token/secretive").json()["access_token"]
        secrets["first refresh token"] = refresh_tokens("secretive")
        key = broker.make_key("secretive", ["token", "proxy"], ["secretive"])
        secrets["api key"] = key
        with broker.client(key) as service:
            assert service.get("/proxy/secretive/v1/me").status_code == 200
            fake.control("expire")
            assert service.get("/proxy/secretive/v1/me").status_code == 200
            secrets["second access token"] = service.get("/token/secretive").json()["access_token"]
            secrets["second refresh token"] = refresh_tokens("secretive")
            for error in ("invalid_client", "invalid_request"):
                # A provider that repeats what it was sent.
                told = f"not {refresh_tokens('secretive')} of {fake.options.client_secret}"
                body = json.dumps({"error": error, "error_description": told})
                fake.fail("token", 1, status=400, body=body, content_type="application/json")
                bodies.append(admin.post("/token/secretive/refresh").text)
            fake.fail("token", 1, drop="after")
            bodies.append(admin.post("/token/secretive/refresh").text)
            bodies.append(service.get("/token/other").text)
            bodies.append(service.get("/proxy/secretive/%2e%2e/x").text)
            bodies.append(service.get(f"/token/{secrets['state']}").text)
        fake.control("revoke")
        bodies.append(admin.post("/token/secretive/refresh").text)
        bodies.append(admin.get("/admin/tenants/secretive").text)
        bodies.append(admin.get("/admin/audit").text)
    return secrets, bodies


def found(secrets: dict[str, str], text: str) -> list[str]:
    return [name for name, value in secrets.items() if value in text]


def test_all_secrets_of_a_life_are_known_to_this_test(life):
    secrets, bodies = life
    assert len(set(secrets.values())) == len(secrets) == 13
    assert all(len(value) >= 12 for value in secrets.values())
    assert len(bodies) == 10


def test_a_dump_of_the_database_holds_no_secret(life, postgres, database_url):
    dump = subprocess.run(
        [postgres.binary("pg_dump"), database_url.replace("+asyncpg", "")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "secretive" in dump
    secrets, _bodies = life
    assert found(secrets, dump) == []
    binary = re.sub(r"[^0-9a-f]", "", dump)
    assert [name for name, value in secrets.items() if value.encode().hex() in binary] == []


def test_the_log_at_debug_holds_no_secret(life, broker):
    log = broker.log_text()
    assert "grant_refreshed" in log
    secrets, _bodies = life
    assert found(secrets, log) == []


def test_metrics_and_errors_hold_no_secret(life, broker):
    secrets, bodies = life
    with broker.client() as anyone:
        assert found(secrets, anyone.get("/metrics").text) == []
    for body in bodies:
        assert found({k: v for k, v in secrets.items() if k != "state"}, body) == [], body


def test_a_crash_leaves_no_secret_behind(life, broker):
    """The last, since it ends the broker. A trace names files and lines, and no core is written."""
    assert broker.stop(signal.SIGABRT) == -signal.SIGABRT
    log = broker.log_text()
    assert "Fatal Python error: Aborted" in log
    secrets, _bodies = life
    assert found(secrets, log) == []
    assert [file for file in broker.folder.iterdir() if "core" in file.name] == []
