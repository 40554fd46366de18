"""Odd bytes on raw sockets, at every door that a stranger reaches.

Of every answer: no 5xx, and a page or a problem. After every test: no traceback in the log, and
nothing stored. ``FUZZ_EXAMPLES``: how many inputs each test sends.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections import Counter
from urllib.parse import quote, quote_from_bytes, urlencode

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.conftest import decide, sql
from tests.service.routes import declared, router_of_the_service
from tests.service.test_pages_and_callback import hidden, sign_in
from tests.service.wire import Answer

from ignition_broker.model import is_tenant_id

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
SENT: Counter[str] = Counter()
STORED = "SELECT " + ", ".join(
    f"(SELECT count(*) FROM {table})"
    for table in ("tenants", "authorizations", "connect_links", "api_keys")
)
GRANTS = "SELECT tenant_id, status, version FROM grants ORDER BY 1"
ROUTES_WITH_IDS = sorted(
    route
    for route in declared(router_of_the_service())
    if re.search(r"\{(tenant|name|link)\}", route[1])
)
DOORS = ["/token/acme", "/forward-auth/acme", "/proxy/acme/v1/me", "/admin/tenants", "/", "/login"]
HEADERS = [
    "Authorization", "Cookie", "Host", "X-Request-ID", "Content-Type", "Content-Length",
    "Transfer-Encoding", "Connection", "Upgrade", "Expect", "Forwarded", "X-Forwarded-For",
    "X-Forwarded-Proto", "Range", "If-None-Match", "Accept-Encoding", "X-HTTP-Method-Override",
]  # fmt: skip


@pytest.fixture(scope="module")
def more_settings():
    return {"BROKER_FAILED_ATTEMPTS": "0"}


@pytest.fixture(scope="module")
def started(broker):
    """An authorization that waits for its callback, in a browser that sends none of the inputs."""
    broker.connect("acme")
    with broker.client() as admin, httpx.Client(timeout=30) as browser:
        link = admin.post("/admin/tenants/dancing/connect-link").json()["url"]
        callback = decide(browser, browser.post(link).headers["location"])
        yield callback.partition("?")[2]
        assert browser.get(callback).status_code == 200


@pytest.fixture(autouse=True)
def _nothing_stored_and_no_traceback(started, broker, postgres, database_url):
    before = [sql(postgres, database_url, statement) for statement in (STORED, GRANTS)]
    yield
    assert [sql(postgres, database_url, statement) for statement in (STORED, GRANTS)] == before
    log = broker.log_text()
    assert not broker.tracebacks()
    assert "request_failed" not in log


@pytest.fixture(scope="module", autouse=True)
def _told():
    yield
    print(f"\nFuzz: {SENT.total()} requests, {dict(SENT)}")


def send(broker, what: str, line: bytes, headers: list[bytes], body: bytes = b"") -> Answer | None:
    """None where the broker waits for a body that the headers announced and that never comes."""
    request = b"\r\n".join([line, *headers, b"Connection: close", b"", b""]) + body
    SENT[what] += 1
    raw = b""
    with socket.create_connection(("127.0.0.1", broker.port), timeout=20) as connection:
        lower = b"\r\n".join(headers).lower()
        waits = b"content-length" in lower or b"transfer-encoding" in lower
        if waits and not body:
            connection.settimeout(0.3)
        try:
            connection.sendall(request)
            while piece := connection.recv(1 << 16):
                raw += piece
        except TimeoutError:
            assert waits, request[:500]
        except (ConnectionResetError, BrokenPipeError):
            pass
    return Answer(raw) if raw else None


def assert_sound(answer: Answer | None, request: object = "") -> None:
    if answer is None:
        return
    assert answer.status < 500, (request, answer.raw[:500])
    if answer.status in {204, 303}:
        return
    kind = answer.values(b"content-type")
    if answer.status < 400:
        return
    if kind == [b"application/problem+json"]:
        if not answer.body:
            return  # To a HEAD.
        problem = json.loads(answer.body)
        assert problem["status"] == answer.status
        assert problem["request_id"].encode() in answer.values(b"x-request-id")
    else:
        assert kind == [b"text/html; charset=utf-8"], (request, answer.raw[:500])
        assert answer.body.startswith(b"<!doctype html>"), answer.raw[:500]


odd_text = st.one_of(st.text(max_size=60), st.sampled_from(["", "\x00", "'\"<>&", "a" * 3000]))
odd_bytes = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([b"", b"%", b"%zz", b"\xff\xfe", b"\xc0\xae", b"..", b"%2e%2e", b"a" * 9000]),
)
# Characters that a request line may contain: others would end it.
targets = odd_bytes.map(lambda raw: re.sub(rb"[\x00-\x20\x7f]", b"", raw))


@SETTINGS
@given(st.data())
def test_no_callback_but_the_one_begun_connects(started, broker, data):
    query = dict(pair.split("=", 1) for pair in started.split("&"))
    names = st.sampled_from(["state", "code", "iss", "error", "error_description", "x"])
    values = st.one_of(odd_text.map(quote), st.sampled_from(sorted(query.values())))
    pairs = data.draw(st.lists(st.tuples(names, values), max_size=6))
    raw = "&".join(f"{name}={value}" for name, value in pairs).encode()
    raw += data.draw(st.one_of(st.just(b""), targets))
    cookies = data.draw(st.one_of(st.none(), odd_bytes))
    headers = [b"Host: broker"]
    if cookies is not None and not re.search(rb"[\r\n\x00]", cookies):
        headers.append(b"Cookie: ignition-broker-browser=" + cookies)
    answer = send(broker, "callback", b"GET /callback?" + raw + b" HTTP/1.1", headers)
    assert_sound(answer, raw)
    assert answer is not None
    assert answer.status in {400, 422}, (raw, answer.raw[:300])


@SETTINGS
@given(
    st.lists(st.tuples(st.sampled_from(["key", "csrf", "return_to", "x"]), odd_text), max_size=5),
    st.one_of(st.none(), st.binary(max_size=200)),
    st.sampled_from(
        [
            b"application/x-www-form-urlencoded",
            b"application/x-www-form-urlencoded; charset=utf-7",
            b"multipart/form-data",
            b"multipart/form-data; boundary=x",
            b"multipart/form-data; boundary=\xff",
            b"application/json",
            b"",
        ]
    ),
    st.sampled_from(["ignition-broker-browser", "ignition-broker-session", "x"]),
    st.one_of(odd_bytes, st.just(b"A" * 43)),
)
def test_no_form_signs_a_stranger_in(broker, fields, raw, kind, cookie, value):
    body = urlencode(fields).encode() if raw is None else raw
    headers = [b"Host: broker", b"Content-Type: " + kind, b"Content-Length: %d" % len(body)]
    if not re.search(rb"[\r\n\x00]", value):
        headers.append(b"Cookie: " + cookie.encode() + b"=" + value)
    answer = send(broker, "login", b"POST /login HTTP/1.1", headers, body)
    assert_sound(answer, (body, headers))
    assert answer is not None
    assert 400 <= answer.status < 500
    assert not any(b"session=" in line for line in answer.values(b"set-cookie"))


@SETTINGS
@given(st.sampled_from(ROUTES_WITH_IDS), odd_bytes, st.booleans())
@example(("POST", "/token/{tenant}/refresh"), b"acme/refresh\n", False)
def test_no_odd_tenant_name_or_link_is_taken_for_one(broker, route, tenant, is_raw):
    method, path = route
    spelled = re.sub(rb"[\x00-\x20\x7f]", b"", tenant) if is_raw else quote_from_bytes(tenant, "")
    spelled = spelled if isinstance(spelled, bytes) else spelled.encode()
    if is_tenant_id(spelled.decode("latin-1")):
        return
    before, _id, after = re.split(r"\{(tenant|name|link)\}", path.replace("{path}", "v1/me"))
    line = f"{method} {before}".encode() + spelled + after.encode() + b" HTTP/1.1"
    # The broker's own host name: a link on another host is redirected, whatever it is.
    host = b"Host: localhost:%d" % broker.port
    headers = [host, b"Authorization: Bearer " + broker.admin_key.encode()]
    answer = send(broker, "ids", line, headers)
    assert_sound(answer, line)
    assert answer is not None
    assert 400 <= answer.status < 500, (line, answer.raw[:300])


@pytest.fixture(scope="module")
def signed_in(broker):
    with httpx.Client(base_url=broker.url, timeout=30) as browser:
        sign_in(browser, broker.admin_key)
        yield browser, hidden(browser.get("/").text, "csrf")


@SETTINGS
@given(
    st.sampled_from(["/connect", "/disconnect", "/auth", "/", "/login"]),
    st.one_of(odd_text, odd_bytes),
)
def test_no_page_of_a_signed_in_admin_takes_an_odd_tenant_id(signed_in, page, odd):
    browser, csrf = signed_in
    if odd and is_tenant_id(odd if isinstance(odd, str) else odd.decode("latin-1")):
        return
    SENT["pages"] += 1
    if page in {"/connect", "/disconnect"}:
        body = urlencode({"tenant": odd, "csrf": csrf})
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = browser.post(page, content=body, headers=kind)
        assert answer.status_code in {400, 413, 422}
    else:
        names = {"tenant": odd, "after": odd, "status": odd, "return_to": odd}
        answer = browser.get(f"{page}?{urlencode(names)}")
        assert answer.status_code == (422 if page == "/auth" else 200)
    kind = answer.headers["content-type"]
    assert kind in {"text/html; charset=utf-8", "application/problem+json"}


@SETTINGS
@given(
    st.sampled_from(DOORS),
    st.lists(
        st.tuples(
            st.one_of(st.sampled_from(HEADERS).map(str.encode), st.binary(max_size=10)),
            st.one_of(
                odd_bytes,
                st.sampled_from([b"Bearer ", b"Bearer \xff\xfe", b"chunked", b"-1", b"close, x"]),
                st.integers(0, 70_000).map(lambda size: b"h" * size),
            ),
        ),
        max_size=6,
    ),
    st.integers(1, 3),
    st.booleans(),
)
def test_no_header_breaks_a_door_or_opens_it(broker, path, pairs, times, has_key):
    key = [b"Authorization: Bearer " + broker.admin_key.encode()] if has_key else []
    headers = [b"Host: broker", *key] + [name + b": " + value for name, value in pairs] * times
    answer = send(broker, "headers", f"GET {path} HTTP/1.1".encode(), headers)
    if path.startswith("/proxy/") and answer is not None and not answer.values(b"broker-error"):
        assert has_key, (headers, answer.raw[:300])
        return
    assert_sound(answer, (path, headers))
    if answer is not None and not has_key and path not in {"/", "/login"}:
        assert answer.status in {400, 401, 431}, (headers, answer.raw[:300])


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"POST /token/acme/refresh%0A HTTP/1.1", 404),
        (b"GET /%70roxy/acme/v1/me HTTP/1.1", 400),
        (b"GET /proxy/%61cme/v1/me HTTP/1.1", 400),
        (b"GET /%66orward-auth/acme HTTP/1.1", 400),
        (b"GET /forward-auth%2facme HTTP/1.1", 400),
        (b"GET /forward-auth/%61cme HTTP/1.1", 400),
        (b"GET /forward%2Dauth/acme?x=%61 HTTP/1.1", 400),
        (b"GET /%2566orward-auth/acme HTTP/1.1", 400),
        (b"GET /x/%2e%2e/forward-auth/acme HTTP/1.1", 400),
        (b"GET /x/../forward-auth/acme HTTP/1.1", 404),
        (b"GET //forward-auth/acme HTTP/1.1", 404),
        (b"GET /forward-auth;x/acme HTTP/1.1", 404),
        (b"GET /FORWARD-AUTH/acme HTTP/1.1", 404),
        (b"GET /token/%61cme HTTP/1.1", 400),
        (b"GET /t%6Fken/acme HTTP/1.1", 400),
        (b"POST /token/acme/%72efresh HTTP/1.1", 400),
        (b"GET /admin/tenants/%61cme HTTP/1.1", 400),
        (b"GET /he%61lthz HTTP/1.1", 400),
        (b"GET /%6D%65trics HTTP/1.1", 400),
        (b"GET /token/a%20b HTTP/1.1", 422),
        (b"GET /admin/tenants/a%20b HTTP/1.1", 422),
        (b"GET /healthz/ HTTP/1.1", 404),
    ],
)
def test_another_spelling_of_a_route_is_no_route(broker, line, status):
    headers = [b"Host: elsewhere", b"Authorization: Bearer " + broker.admin_key.encode()]
    answer = send(broker, "spelling", line, headers)
    assert_sound(answer, line)
    assert answer is not None
    assert answer.status == status
    assert answer.values(b"location") == []
