"""HEAD on the broker's own routes."""

from __future__ import annotations

import re

import httpx
import pytest
from tests.conftest import sql
from tests.service.routes import declared, router_of_the_service

from ignition_broker.broker.notifications.event_stream import MOST_STREAMS

# Their GET changes something.
WITHOUT = ["/auth", "/callback", "/login/oidc/callback", "/token/acme", "/forward-auth/acme"]
ENDLESS = "/admin/events"
# Not compared: they depend on the time or on the request.
OF_THE_MOMENT = {"date", "x-request-id", "content-length"}


@pytest.fixture(scope="module")
def gets(broker):
    """The path of every GET route, with an id in place of each parameter."""
    broker.connect("acme")
    with broker.client() as admin:
        link = admin.post("/admin/tenants/acme/connect-link").json()["url"].rpartition("/")[2]
    paths = sorted(path for method, path in declared(router_of_the_service()) if method == "GET")
    filled = [path.replace("{tenant}", "acme").replace("{link}", link) for path in paths]
    return [path for path in filled if "/proxy/" not in path]


def test_head_is_answered_as_get_is_but_for_the_body(broker, gets):
    with broker.client() as admin, httpx.Client(base_url=broker.url, timeout=30) as stranger:
        compared = 0
        for client in (admin, stranger):
            for path in gets:
                if path in WITHOUT or path == ENDLESS:
                    continue
                get, head = client.get(path), client.head(path)
                assert head.status_code == get.status_code, path
                assert head.content == b"", path
                assert kept(head) == kept(get), path
                if path not in {"/metrics"}:
                    length = head.headers.get("content-length")
                    assert length in (None, get.headers.get("content-length")), path
                compared += 1
    assert compared >= 2 * 14


def test_head_of_a_stream_that_never_ends_is_over_at_once(broker):
    with broker.client() as admin:
        # More than may be open at a time: those of HEAD do not stay open.
        for _ in range(MOST_STREAMS + 5):
            head = admin.head(ENDLESS, timeout=5)
            assert (head.status_code, head.content) == (200, b"")
        with admin.stream("GET", ENDLESS, timeout=5) as get:
            framing = {"transfer-encoding": "chunked"}
            assert kept(head) | framing == kept(get) | framing
            assert get.headers["content-type"].startswith("text/event-stream")


def kept(answer: httpx.Response) -> dict[str, str]:
    pairs = ((name.lower(), value) for name, value in answer.headers.items())
    # Random values in a page.
    return {
        name: re.sub(r"[A-Za-z0-9_-]{20,}", "…", value)
        for name, value in pairs
        if name not in OF_THE_MOMENT
    }


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/", 303),
        ("/login", 200),
        ("/docs", 200),
        ("/openapi.json", 200),
        ("/style.css", 200),
        ("/connect.js", 200),
        ("/brand/logo", 404),
        ("/admin/tenants", 401),
        ("/none", 404),
    ],
)
def test_head_without_a_key(broker, path, status):
    with httpx.Client(base_url=broker.url, timeout=30) as stranger:
        assert stranger.head(path).status_code == status
        assert stranger.head("/healthz").status_code == 200, "the connection goes on"


def test_an_admin_sees_the_console_by_head(broker):
    with httpx.Client(base_url=broker.url, timeout=30, follow_redirects=True) as browser:
        page = browser.get("/login")
        fields = dict(re.findall(r'name="([^"]+)" value="([^"]*)"', page.text))
        browser.post("/login", data={**fields, "key": broker.admin_key})
        assert browser.get("/", follow_redirects=False).status_code == 200
        assert browser.head("/", follow_redirects=False).status_code == 200


def test_a_look_at_a_link_by_head_does_not_spend_it(broker, fake):
    with broker.client() as admin:
        link = admin.post("/admin/tenants/acme/connect-link").json()["url"]
    with httpx.Client(timeout=30) as browser:
        for _ in range(3):
            assert browser.head(link).status_code == 200
        assert browser.post(link).status_code == 303
        assert browser.head(link).status_code == 410


@pytest.mark.parametrize("path", WITHOUT)
def test_where_get_changes_something_head_is_no_method(broker, fake, postgres, database_url, path):
    statement = "SELECT count(*) FROM authorizations"
    before = (fake.counters(), sql(postgres, database_url, statement))
    with broker.client() as admin:
        answer = admin.head(path, params={"tenant": "acme", "state": "x", "code": "y"})
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET"
    assert (fake.counters(), sql(postgres, database_url, statement)) == before


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/healthz", "GET, HEAD"),
        ("/readyz", "GET, HEAD"),
        ("/login", "GET, HEAD, POST"),
        ("/admin/api-keys", "GET, HEAD, POST"),
        ("/admin/api-keys/x", "DELETE"),
        ("/openapi.json", "GET, HEAD"),
    ],
)
def test_a_405_names_head_where_there_is_one(broker, path, allowed):
    with broker.client() as admin:
        answer = admin.put(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_head_is_counted_as_head(broker):
    with httpx.Client(base_url=broker.url, timeout=30) as stranger:
        stranger.head("/login")
        metrics = stranger.get("/metrics").text
    assert 'route="/login",status="200"' in re.sub(r'method="HEAD",', "", metrics)
    assert re.search(r'broker_http_requests_total\{method="HEAD",route="/login"', metrics)
    assert not broker.tracebacks()
