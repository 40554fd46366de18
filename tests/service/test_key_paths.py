"""A key limited to methods and paths. The oracle is what the upstream's socket saw."""

from __future__ import annotations

import json

import pytest
from tests.conftest import sql
from tests.service.wire import RawCaller, answer_ok

BASE = b"/api/v2"
RULES = ["GET /v1/*", "POST /v1/proposals", "* /v1/drafts/*"]


@pytest.fixture(scope="module")
def more_settings(upstream):
    return {"IGNITION_API_URL": f"http://127.0.0.1:{upstream.port}{BASE.decode()}"}


@pytest.fixture(scope="module")
def held(broker):
    broker.connect("acme")
    return RawCaller(broker.port, broker.make_key("held", ["proxy"], ["acme"], paths=RULES))


def assert_refused(answer, upstream, words: bytes) -> None:
    assert upstream.exchanges == []
    assert answer.status == 403
    assert answer.values(b"broker-error") == [b"forbidden"]
    assert answer.values(b"content-type") == [b"application/problem+json"]
    problem = json.loads(answer.body)
    assert problem["type"] == "urn:ignition-broker:forbidden"
    assert problem["tenant"] == "acme"
    assert words.decode() in problem["detail"]
    for rule in RULES:
        assert rule not in problem["detail"]


@pytest.mark.parametrize(
    "line",
    [
        b"GET /v1/proposals?page=2&_method=DELETE",
        b"GET /v1/a%2Fb/%C3%A9/100%25",
        b"GET /v1/",
        b"HEAD /v1/me",
        b"POST /v1/proposals",
        b"DELETE /v1/drafts/7",
        b"PROPFIND /v1/drafts/7",
    ],
)
def test_what_the_rules_name_is_passed_on_as_it_is(held, upstream, line):
    upstream.answers(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert held.call(line).status == 204
    method, _, target = line.partition(b" ")
    assert upstream.last.head.startswith(method + b" " + BASE + target + b" HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "line",
    [
        b"DELETE /v1/proposals",
        b"POST /v1/proposals/7",
        b"POST /v1/proposals/",
        b"POST /v1/proposals;x=1",
        b"POST /v1/%70roposals",
        b"GET /v1",
        b"GET /v10/x",
        b"GET /V1/x",
        b"GET /v2/x?/v1/",
        b"GET /v1%2Fadmin",
        b"GET /%76%31/x",
        b"GET /%2576%2531/x",
        b"GET //v1/x",
        b"GET ",
        b"GET /",
        b"OPTIONS /v1/x",
    ],
)
def test_everything_else_is_forbidden_and_never_sent(held, upstream, line):
    upstream.exchanges.clear()
    assert_refused(held.call(line), upstream, b"do not allow this method on this path")


@pytest.mark.parametrize(
    "path", [b"/v1/%zz", b"/v1/%c0%ae%c0%ae/admin", b"/v1/..%c0%af", b"/v1/%u002e%u002e/x"]
)
def test_an_encoding_that_servers_read_in_two_ways_is_forbidden(held, upstream, path):
    upstream.exchanges.clear()
    assert_refused(held.call(b"GET " + path), upstream, b"percent-encoding")


@pytest.mark.parametrize(
    "path",
    [
        *(b"/v1/../admin", b"/v1/%2e%2e/admin", b"/v1/..%2fadmin", b"/v1/..;/admin", b"/v1/\\x"),
        *(b"/v1/..%3f/admin", b"/v1/..%23", b"/v1/..%20/admin", b"/v1/..%253f/admin"),
    ],
)
def test_what_would_climb_out_of_a_prefix_is_refused_as_it_is_to_every_key(held, upstream, path):
    upstream.exchanges.clear()
    answer = held.call(b"GET " + path)
    assert upstream.exchanges == []
    assert (answer.status, answer.values(b"broker-error")) == (400, [b"invalid-request"])


@pytest.mark.parametrize(
    "header",
    [
        b"X-HTTP-Method-Override: DELETE",
        b"x-http-method: delete",
        b"X-Method-Override: PUT",
        b"X_HTTP_Method_Override: DELETE",
    ],
)
def test_no_header_brings_in_another_method(held, upstream, header):
    upstream.plays(answer_ok)
    refused = held.call(b"POST /v1/proposals", header, b"Content-Length: 0")
    name = header.partition(b":")[0].replace(b"_", b"-").title().replace(b"Http", b"HTTP")
    assert_refused(refused, upstream, b"the method that " + name)
    assert held.call(b"POST /v1/drafts/7", header, b"Content-Length: 0").status == 200


@pytest.mark.parametrize("name", [b"X-Original-URL", b"X-Rewrite-URL"])
def test_no_header_brings_in_another_path(held, upstream, name):
    upstream.exchanges.clear()
    assert_refused(held.call(b"GET /v1/x", name + b": /admin"), upstream, name)


def test_a_key_without_paths_may_do_all_of_that(caller, upstream):
    upstream.plays(answer_ok)
    assert caller.call(b"DELETE /v2/x", b"X-HTTP-Method-Override: PUT").status == 200
    assert upstream.last.values(b"x-http-method-override") == [b"PUT"]


def test_a_body_that_is_forbidden_is_not_waited_for(held, upstream):
    upstream.exchanges.clear()
    with held.connect() as connection:
        connection.sendall(held.head(b"PUT /v1/x", b"Content-Length: 1000000"))
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 403 ")
    assert upstream.exchanges == []


def test_scopes_that_were_written_past_the_broker_give_a_held_key_nothing(
    broker, upstream, postgres, database_url
):
    """The release before leaves the paths of a revoked name where it gives the name again."""
    broker.connect("acme")
    key = broker.make_key("again", ["proxy"], ["acme"], paths=["GET /v1/*"])
    upstream.plays(answer_ok)
    widen = "UPDATE api_keys SET scopes = '{token,proxy,admin}' WHERE name = 'again'"
    sql(postgres, database_url, widen)
    with broker.client(key) as service:
        assert service.get("/token/acme").status_code == 403
        assert service.get("/admin/tenants").status_code == 403
        assert service.get("/forward-auth/acme").status_code == 403
        assert service.delete("/proxy/acme/v1/x").status_code == 403
        assert service.get("/proxy/acme/v1/x").status_code == 200
