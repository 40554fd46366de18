"""The fake Ignition on a real port, on which the other tests rely."""

import asyncio
import base64
import hashlib
import html
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlsplit

import httpx
import pytest
import uvicorn

from ignition_broker.fake_ignition import FakeIgnitionOptions, create_fake_ignition

CALLBACK = "http://localhost:3000/callback"
CREDENTIALS = {"client_id": "demo-client", "client_secret": "demo-secret"}


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Fake:
    """A running fake, and the calls that most tests make of it."""

    http: httpx.Client
    clock_offset: list[float]
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))

    def let_pass(self, seconds: float) -> None:
        self.clock_offset[0] += seconds

    def request_parameters(self, **changes: str | None) -> dict[str, str]:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        parameters = {
            "client_id": "demo-client",
            "redirect_uri": CALLBACK,
            "response_type": "code",
            "scope": "proposals:read clients:read",
            "state": "opaque state/+&",
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            **changes,
        }
        return {name: value for name, value in parameters.items() if value is not None}

    def authorize(self, **changes: str | None) -> httpx.Response:
        return self.http.get("/oauth/authorize", params=self.request_parameters(**changes))

    def code(self, **changes: str | None) -> str:
        return returned(self.authorize(auto="1", **changes))["code"]

    def exchange(self, code: str, **changes: str) -> httpx.Response:
        parameters = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": CALLBACK,
            "code_verifier": self.verifier,
            **CREDENTIALS,
            **changes,
        }
        return self.http.post("/oauth/token", data={k: v for k, v in parameters.items() if v})

    def connect(self) -> dict[str, Any]:
        answer = self.exchange(self.code())
        assert answer.status_code == 200
        return answer.json()

    def refresh(self, refresh_token: str, **changes: str) -> httpx.Response:
        return self.http.post(
            "/oauth/token",
            data={
                "grant_type": "refresh_token",
                "refresh_token": refresh_token,
                **CREDENTIALS,
                **changes,
            },
        )

    def get(self, path: str, tokens: dict[str, Any], **options: Any) -> httpx.Response:
        return self.http.get(path, headers=bearer(tokens), **options)

    def control(self, order: str, **members: Any) -> dict[str, Any]:
        answer = self.http.post(f"/control/{order}", json=members)
        assert answer.is_success, answer.text
        return answer.json()

    def counters(self) -> dict[str, int]:
        return self.http.get("/control/counters").json()

    def grant(self, tokens: dict[str, Any]) -> dict[str, Any]:
        (grant,) = self.http.get(
            "/control/ledger", params={"access_token_sha256": sha256(tokens["access_token"])}
        ).json()["grants"]
        return grant


def bearer(tokens: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


def returned(redirect: httpx.Response) -> dict[str, str]:
    """Read what the redirect brings back to the client."""
    assert redirect.status_code == 303
    location = redirect.headers["location"]
    assert location.startswith(CALLBACK + "?")
    return {name: value for name, (value,) in parse_qs(urlsplit(location).query).items()}


def refused(answer: httpx.Response, error: str, status: int = 400) -> str:
    """Check an error of the token endpoint and return its description."""
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()["error_description"]


StartFake = Callable[..., Fake]


@pytest.fixture
def start_fake() -> Iterator[StartFake]:
    stops: list[Callable[[], None]] = []

    def start(*, http: str = "auto", loop: str = "auto", **options: Any) -> Fake:
        offset = [0.0]
        app = create_fake_ignition(
            FakeIgnitionOptions(**options), clock=lambda: time.time() + offset[0]
        )
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", http=http, loop=loop))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        client = httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=10)

        def stop() -> None:
            client.close()
            server.should_exit = True
            thread.join()

        stops.append(stop)
        while not server.started:
            time.sleep(0.005)
        return Fake(client, offset)

    yield start
    for stop in stops:
        stop()


@pytest.fixture
def fake(start_fake: StartFake) -> Fake:
    return start_fake()


# Consent


def test_a_user_approves_on_a_page_with_a_form_and_no_script(fake: Fake):
    page = fake.authorize(state="\"><script>alert('x')</script>")
    assert page.status_code == 200
    assert "<script" not in page.text
    assert "Ignition Broker" in page.text
    assert "proposals:read" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "form-action" not in policy
    hidden = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', page.text)
    form = {html.unescape(name): html.unescape(value) for name, value in hidden}
    for button in ("approve", "deny"):
        assert f'id="{button}"' in page.text

    approved = fake.http.post("/oauth/authorize", data={**form, "decision": "approve"})

    assert returned(approved)["state"] == "\"><script>alert('x')</script>"
    assert fake.exchange(returned(approved)["code"]).status_code == 200
    assert fake.counters()["approvals"] == 1


def test_a_user_denies_and_the_client_is_told(fake: Fake):
    form = fake.request_parameters()
    denied = fake.http.post("/oauth/authorize", data={**form, "decision": "deny"})
    answer = returned(denied)
    assert (answer["error"], answer["state"]) == ("access_denied", form["state"])
    assert answer["error_description"]
    assert fake.counters()["denials"] == 1


def test_auto_approves_at_once(fake: Fake):
    answer = returned(fake.authorize(auto="1"))
    assert answer.keys() == {"code", "state"}


def test_the_issuer_names_itself_when_told_to(start_fake: StartFake):
    fake = start_fake(issuer="https://ignition.example")
    assert returned(fake.authorize(auto="1"))["iss"] == "https://ignition.example"
    assert returned(fake.authorize(scope='"'))["iss"] == "https://ignition.example"


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "somebody-else"},
        {"client_id": None},
        {"redirect_uri": CALLBACK + "/"},
        {"redirect_uri": CALLBACK + "?a=b"},
        {"redirect_uri": "http://127.0.0.1:3000/callback"},
        {"redirect_uri": None},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unregistered_client_or_redirect_uri_gets_a_page_and_no_redirect(
    fake: Fake, changes: dict[str, str | None], method: str
):
    parameters = {**fake.request_parameters(**changes), "auto": "1", "decision": "approve"}
    answer = fake.http.request(
        method, "/oauth/authorize", **{"params" if method == "GET" else "data": parameters}
    )
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert 'role="alert"' in answer.text


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"scope": 'a"b'}, "invalid_scope"),
    ],
)
def test_a_bad_authorization_request_is_told_to_the_client(
    fake: Fake, changes: dict[str, str | None], error: str
):
    answer = returned(fake.authorize(auto="1", **changes))
    assert (answer["error"], answer["state"]) == (error, "opaque state/+&")


def test_a_decision_must_come_from_the_consent_form(fake: Fake):
    form = fake.request_parameters()
    assert fake.http.post("/oauth/authorize", data=form).status_code == 400
    assert fake.http.post("/oauth/authorize", json=form).status_code == 400
    assert fake.http.get("/oauth/authorize?client_id=a&client_id=b").status_code == 400


def test_without_required_pkce_a_code_needs_no_verifier_and_takes_none(start_fake: StartFake):
    fake = start_fake(require_pkce=False)
    plain = {"code_challenge": None, "code_challenge_method": None}
    assert fake.exchange(fake.code(**plain), code_verifier="").status_code == 200
    assert "verifier" in refused(fake.exchange(fake.code(**plain)), "invalid_grant")


def test_a_redirect_uri_with_a_query_keeps_it(start_fake: StartFake):
    fake = start_fake(redirect_uris=(CALLBACK + "?a=b",))
    assert returned(fake.authorize(auto="1", redirect_uri=CALLBACK + "?a=b"))["a"] == "b"


# Codes


def test_a_code_turns_into_tokens(fake: Fake):
    answer = fake.exchange(fake.code())
    tokens = answer.json()
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "refresh_token", "scope"}
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 3600)
    assert tokens["scope"] == "proposals:read clients:read"
    assert answer.headers["cache-control"] == "no-store"
    assert fake.get("/v1/me", tokens).json()["scope"] == tokens["scope"]


def test_a_code_used_twice_ends_what_its_first_use_began(fake: Fake):
    code = fake.code()
    tokens = fake.exchange(code).json()
    assert fake.get("/v1/me", tokens).status_code == 200

    refused(fake.exchange(code), "invalid_grant")

    assert fake.get("/v1/me", tokens).status_code == 401
    refused(fake.refresh(tokens["refresh_token"]), "invalid_grant")
    assert fake.grant(tokens)["revoked_reason"] == "code_reused"
    assert fake.counters()["code_reuses"] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"code_verifier": "w" * 43},
        {"code_verifier": "short"},
        {"code_verifier": ""},
        {"redirect_uri": CALLBACK + "/other"},
        {"redirect_uri": ""},
        {"code": "unknown"},
    ],
)
def test_a_code_is_refused_without_its_proof(fake: Fake, changes: dict[str, str]):
    refused(fake.exchange(**{"code": fake.code(), **changes}), "invalid_grant")
    assert fake.counters()["code_exchanges"] == 0


def test_a_code_lapses(fake: Fake):
    code = fake.code()
    fake.let_pass(60)
    assert "expired" in refused(fake.exchange(code), "invalid_grant")


# The token endpoint


@pytest.mark.parametrize("body", ["data", "json"])
@pytest.mark.parametrize("method", ["post", "basic"])
def test_both_bodies_and_both_client_authentications_work(
    start_fake: StartFake, body: str, method: str
):
    client_id, client_secret = "an id:with colon", "p%+ä &word"
    fake = start_fake(client_id=client_id, client_secret=client_secret)
    tokens = fake.control("grants")["grants"][0]
    parameters = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    headers = {}
    if method == "basic":
        pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}".encode()
        headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
    else:
        parameters |= {"client_id": client_id, "client_secret": client_secret}
    answer = fake.http.post("/oauth/token", headers=headers, **{body: parameters})
    assert answer.status_code == 200
    assert answer.json()["access_token"] != tokens["access_token"]


@pytest.mark.parametrize(
    "shown", [{"client_secret": "wrong"}, {"client_id": "wrong"}, {"client_secret": ""}]
)
def test_a_wrong_client_is_refused_and_spends_nothing(fake: Fake, shown: dict[str, str]):
    tokens = fake.connect()
    refused(fake.refresh(tokens["refresh_token"], **shown), "invalid_client", 401)
    assert fake.counters()["client_authentication_failures"] == 1
    assert fake.refresh(tokens["refresh_token"]).status_code == 200


def test_wrong_basic_credentials_are_answered_with_a_challenge(fake: Fake):
    answer = fake.http.post(
        "/oauth/token", data={"grant_type": "refresh_token"}, auth=("demo-client", "wrong")
    )
    refused(answer, "invalid_client", 401)
    assert answer.headers["www-authenticate"].startswith("Basic ")


def test_two_authentications_at_once_or_two_client_ids_are_refused(fake: Fake):
    basic = ("demo-client", "demo-secret")
    both = {"grant_type": "refresh_token", **CREDENTIALS}
    refused(fake.http.post("/oauth/token", data=both, auth=basic), "invalid_request")
    other = {"grant_type": "refresh_token", "client_id": "other"}
    refused(fake.http.post("/oauth/token", data=other, auth=basic), "invalid_request")


def test_secrets_in_the_uri_are_refused(fake: Fake):
    answer = fake.http.post("/oauth/token", params=CREDENTIALS, data={"grant_type": "x"})
    refused(answer, "invalid_request")


def test_other_grant_types_are_unsupported(fake: Fake):
    password = {"grant_type": "password", **CREDENTIALS}
    refused(fake.http.post("/oauth/token", data=password), "unsupported_grant_type")
    refused(fake.http.post("/oauth/token", data=CREDENTIALS), "invalid_request")
    assert fake.http.get("/oauth/token").status_code == 405


# Refresh tokens


def test_a_refresh_rotates_the_refresh_token_and_leaves_the_access_token(fake: Fake):
    first = fake.connect()
    second = fake.refresh(first["refresh_token"]).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert fake.get("/v1/me", first).status_code == 200
    assert fake.get("/v1/me", second).status_code == 200
    assert fake.grant(first)["refreshes"] == 1


def test_a_spent_refresh_token_revokes_the_grant_and_its_access_tokens(fake: Fake):
    first = fake.connect()
    second = fake.refresh(first["refresh_token"]).json()

    refused(fake.refresh(first["refresh_token"]), "invalid_grant")

    assert fake.get("/v1/me", second).status_code == 401
    refused(fake.refresh(second["refresh_token"]), "invalid_grant")
    grant = fake.grant(first)
    assert (grant["alive"], grant["revoked_reason"]) == (False, "refresh_token_reused")
    assert [token["times_presented"] for token in grant["refresh_tokens"]] == [2, 1]
    assert grant["refresh_tokens"][0]["sha256"] == sha256(first["refresh_token"])
    counters = fake.counters()
    assert (counters["refreshes"], counters["refresh_failures"]) == (1, 2)
    assert counters["refresh_token_reuses"] == 1


def test_a_refresh_may_ask_for_less_and_not_for_more(fake: Fake):
    tokens = fake.connect()
    more = fake.refresh(tokens["refresh_token"], scope="proposals:read billing")
    refused(more, "invalid_scope")
    less = fake.refresh(tokens["refresh_token"], scope="proposals:read")
    assert less.json()["scope"] == "proposals:read"


def test_without_rotation_the_answer_brings_no_refresh_token(start_fake: StartFake):
    fake = start_fake(rotate_refresh_tokens=False)
    tokens = fake.connect()
    for _ in range(2):
        assert "refresh_token" not in fake.refresh(tokens["refresh_token"]).json()


def test_an_unknown_refresh_token_is_refused(fake: Fake):
    refused(fake.refresh("unknown"), "invalid_grant")
    refused(fake.refresh(""), "invalid_request")


# Revocation


def test_revoking_a_refresh_token_ends_the_grant(fake: Fake):
    tokens = fake.connect()
    form = {"token": tokens["refresh_token"], **CREDENTIALS}
    for _ in range(2):
        assert fake.http.post("/oauth/revoke", data=form).status_code == 200
    assert fake.get("/v1/me", tokens).status_code == 401
    assert fake.grant(tokens)["revoked_reason"] == "revoked_by_client"
    assert fake.counters()["revocations"] == 1
    assert fake.counters()["revoke_requests"] == 2


def test_revoking_an_access_token_ends_that_one_alone(fake: Fake):
    tokens = fake.connect()
    form = {"token": tokens["access_token"], **CREDENTIALS}
    assert fake.http.post("/oauth/revoke", data=form).status_code == 200
    assert fake.get("/v1/me", tokens).status_code == 401
    assert fake.refresh(tokens["refresh_token"]).status_code == 200


def test_revocation_needs_the_client_and_not_a_known_token(fake: Fake):
    form = {"token": "unknown", **CREDENTIALS}
    assert fake.http.post("/oauth/revoke", data=form).status_code == 200
    refused(fake.http.post("/oauth/revoke", data={"token": "a"}), "invalid_client", 401)
    refused(fake.http.post("/oauth/revoke", data=CREDENTIALS), "invalid_request")


# The API


@pytest.mark.parametrize("path", ["/v1/me", "/v1/proposals", "/v1/clients", "/echo", "/echo/a"])
@pytest.mark.parametrize("authorization", [None, "Bearer unknown", "Basic eDp5", "Bearer"])
def test_the_api_wants_a_live_token(fake: Fake, path: str, authorization: str | None):
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = fake.http.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith('Bearer error="invalid_token"')
    assert fake.counters()["api_unauthorized"] == fake.counters()["api_requests"] == 1


def test_an_access_token_expires_by_the_clock(start_fake: StartFake):
    fake = start_fake(access_token_lifetime_seconds=30)
    tokens = fake.connect()
    assert tokens["expires_in"] == 30
    fake.let_pass(31)
    assert fake.get("/v1/me", tokens).status_code == 401


def test_proposals_come_in_linked_pages(fake: Fake):
    tokens = fake.connect()
    answer = fake.get("/v1/proposals", tokens, params={"page": 1, "per_page": 20})
    found = answer.json()["proposals"]
    assert "prev" not in answer.links
    while "next" in answer.links:
        url = answer.links["next"]["url"]
        assert url.startswith(str(fake.http.base_url))
        answer = fake.get(url, tokens)
        found += answer.json()["proposals"]
    assert "prev" in answer.links
    assert len({proposal["id"] for proposal in found}) == answer.json()["total"] == 57


@pytest.mark.parametrize("query", ["page=0", "page=x", "per_page=101", "page=-1", "page=٣"])
def test_a_page_that_makes_no_sense_is_refused(fake: Fake, query: str):
    assert fake.get(f"/v1/proposals?{query}", fake.connect()).status_code == 400


def test_links_survive_a_nonsensical_host(fake: Fake):
    headers = {**bearer(fake.connect()), "Host": "a b<>"}
    links = fake.http.get("/v1/proposals", headers=headers).links
    assert links["next"]["url"].startswith("http://127.0.0.1:")


def test_a_client_can_be_added(fake: Fake):
    tokens = fake.connect()
    added = fake.http.post("/v1/clients", headers=bearer(tokens), json={"name": "Litware"})
    assert added.status_code == 201
    assert added.json() in fake.get("/v1/clients", tokens).json()["clients"]
    for members in ({}, {"name": 1}, {"name": "a", "email": 1}):
        refusal = fake.http.post("/v1/clients", headers=bearer(tokens), json=members)
        assert refusal.status_code == 422


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_echo_tells_what_arrived(fake: Fake, method: str):
    headers = [*bearer(fake.connect()).items(), ("X-Twice", "1"), ("X-Twice", "2")]
    answer = fake.http.request(
        method, "/echo/a%2Fb//%e2%82%ac?x=%20&x", headers=headers, content="bödy".encode()
    ).json()
    assert answer["method"] == method
    assert answer["path"] == "/echo/a%2Fb//%e2%82%ac"
    assert answer["query"] == "x=%20&x"
    assert [value for name, value in answer["headers"] if name == "x-twice"] == ["1", "2"]
    assert (answer["body_text"], answer["body_size"]) == ("bödy", 5)
    assert answer["body_sha256"] == sha256("bödy")


def test_echo_of_a_long_or_binary_body_is_a_hash(fake: Fake):
    tokens = fake.connect()
    for body in (b"a" * 64 * 1024, b"\xff", b"b" * 5_000_000):
        answer = fake.http.post("/echo", headers=bearer(tokens), content=body).json()
        assert answer["body_sha256"] == hashlib.sha256(body).hexdigest()
        assert (answer["body_size"], answer["body_text"]) == (len(body), None)


def test_bytes_are_streamed_in_the_number_asked_for(fake: Fake):
    tokens = fake.connect()
    for size in (0, 1, 65_536, 65_537, 3_000_000):
        answer = fake.get(f"/v1/bytes?size={size}", tokens)
        assert int(answer.headers["content-length"]) == len(answer.content) == size


def test_events_are_streamed_as_they_happen(fake: Fake):
    tokens = fake.connect()
    arrivals = []
    with fake.http.stream(
        "GET", "/v1/stream?count=3&interval_ms=100", headers=bearer(tokens)
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        arrivals = [(line, time.monotonic()) for line in answer.iter_lines() if "data:" in line]
    assert [line for line, _ in arrivals] == [f'data: {{"number": {n}}}' for n in range(3)]
    assert arrivals[-1][1] - arrivals[0][1] >= 0.15


# Control


def test_expire_ends_access_tokens_and_no_grant(fake: Fake):
    one, other = fake.connect(), fake.connect()
    named = {"access_token_sha256": sha256(one["access_token"])}
    assert fake.control("expire", **named) == {"expired": 1}
    assert fake.get("/v1/me", one).status_code == 401
    assert fake.get("/v1/me", other).status_code == 200
    one = fake.refresh(one["refresh_token"]).json()
    assert fake.control("expire", grant=fake.grant(other)["id"]) == {"expired": 1}
    assert fake.get("/v1/me", one).status_code == 200
    assert fake.control("expire") == {"expired": 1}
    assert fake.get("/v1/me", one).status_code == 401
    assert fake.control("expire", grant="unknown") == {"expired": 0}


def test_revoke_ends_grants(fake: Fake):
    one, other, third = fake.connect(), fake.connect(), fake.connect()
    named = {"access_token_sha256": sha256(one["access_token"])}
    assert fake.control("revoke", **named) == {"revoked": 1}
    refused(fake.refresh(one["refresh_token"]), "invalid_grant")
    assert fake.control("revoke", grant=fake.grant(other)["id"]) == {"revoked": 1}
    assert fake.get("/v1/me", other).status_code == 401
    assert fake.get("/v1/me", third).status_code == 200
    assert fake.control("revoke") == {"revoked": 1}
    assert fake.grant(third)["revoked_reason"] == "revoked_by_control"
    assert fake.control("revoke", access_token_sha256="unknown") == {"revoked": 0}


def test_fail_answers_with_a_status_the_number_of_times_asked_for(fake: Fake):
    tokens = fake.connect()
    fake.control("fail", endpoint="token", count=2, status=503, headers={"Retry-After": "2"})
    for _ in range(2):
        answer = fake.refresh(tokens["refresh_token"])
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert fake.refresh(tokens["refresh_token"]).status_code == 200
    assert fake.counters()["faults_injected"] == 2
    assert fake.counters()["refresh_failures"] == 0


def test_fail_reaches_each_endpoint_alone(fake: Fake):
    tokens = fake.connect()
    for endpoint in ("token", "revoke", "authorize", "api"):
        fake.control("fail", endpoint=endpoint, body="<h1>", content_type="text/html", status=418)
    answers = [
        fake.refresh(tokens["refresh_token"]),
        fake.http.post("/oauth/revoke"),
        fake.authorize(),
        fake.get("/v1/me", tokens),
    ]
    assert {answer.status_code for answer in answers} == {418}
    assert {answer.headers["content-type"] for answer in answers} == {"text/html"}
    assert fake.get("/v1/me", tokens).status_code == 200


@pytest.mark.parametrize(("http", "loop"), [("httptools", "uvloop"), ("h11", "asyncio")])
def test_a_dropped_answer_leaves_the_refresh_token_spent(
    start_fake: StartFake, http: str, loop: str, caplog: pytest.LogCaptureFixture
):
    fake = start_fake(http=http, loop=loop)
    tokens = fake.connect()
    fake.control("fail", endpoint="token", drop="after")
    with pytest.raises(httpx.TransportError):
        fake.refresh(tokens["refresh_token"])
    grant = fake.grant(tokens)
    assert (grant["alive"], grant["refreshes"]) == (True, 1)
    spent, current = grant["refresh_tokens"]
    assert (spent["times_presented"], spent["answer_dropped"]) == (1, True)
    assert spent["answer_dropped_at"] == spent["presented_at"]
    assert (current["times_presented"], current["answer_dropped"]) == (0, False)
    refused(fake.refresh(tokens["refresh_token"]), "invalid_grant")
    assert fake.counters()["answers_dropped"] == 1
    assert caplog.records == []


def test_a_request_dropped_before_it_was_carried_out_leaves_the_refresh_token_good(fake: Fake):
    tokens = fake.connect()
    fake.control("fail", endpoint="token", drop="before")
    with pytest.raises(httpx.TransportError):
        fake.refresh(tokens["refresh_token"])
    assert fake.grant(tokens)["refresh_tokens"][0]["times_presented"] == 0
    assert fake.refresh(tokens["refresh_token"]).status_code == 200
    assert fake.counters()["answers_dropped"] == 0


def test_an_answer_can_break_off_midway(fake: Fake):
    tokens = fake.connect()
    fake.control("fail", endpoint="api", drop="during")
    with fake.http.stream("GET", "/v1/bytes?size=1000000", headers=bearer(tokens)) as answer:
        assert answer.status_code == 200
        chunks = []
        with pytest.raises(httpx.RemoteProtocolError):
            chunks.extend(answer.iter_raw())
    assert sum(map(len, chunks)) == 500_000


def test_a_delay_and_a_drop_combine(fake: Fake):
    tokens = fake.connect()
    fake.control("fail", endpoint="token", delay_seconds=0.3)
    fake.control("fail", endpoint="token", delay_seconds=0.3, drop="after")
    began = time.monotonic()
    second = fake.refresh(tokens["refresh_token"]).json()
    assert time.monotonic() - began >= 0.3
    with pytest.raises(httpx.TransportError):
        fake.refresh(second["refresh_token"])
    assert time.monotonic() - began >= 0.6
    first, dropped, _ = fake.grant(tokens)["refresh_tokens"]
    assert (first["answer_delayed"], first["answer_dropped"]) == (True, False)
    assert (dropped["answer_delayed"], dropped["answer_dropped"]) == (True, True)


def test_the_ledger_tells_by_the_host_that_was_asked_who_showed_a_refresh_token(fake: Fake):
    tokens = fake.connect()
    fake.http.headers["Host"] = "replica-3"
    assert fake.refresh(tokens["refresh_token"]).status_code == 200
    spent, _current = fake.grant(tokens)["refresh_tokens"]
    assert spent["presented_host"] == ["replica-3"]


def test_the_ledger_tells_by_the_query_of_the_token_url_who_showed_a_refresh_token(fake: Fake):
    tokens = fake.connect()
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    answer = fake.http.post("/oauth/token?replica=3", data={**form, **CREDENTIALS})
    assert answer.status_code == 200
    (host,) = fake.grant(tokens)["refresh_tokens"][0]["presented_host"]
    assert host == f"{fake.http.base_url.netloc.decode()}?replica=3"


def test_a_request_can_be_carried_out_behind_a_502_and_the_answer_counts_as_dropped(fake: Fake):
    tokens = fake.connect()
    fake.control("fail", endpoint="token", status=502, carry_out=True)
    assert fake.refresh(tokens["refresh_token"]).status_code == 502
    assert fake.counters()["answers_dropped"] == 1
    spent, _current = fake.grant(tokens)["refresh_tokens"]
    assert spent["spent_at"] is not None
    assert spent["answer_dropped"]


def test_the_ledger_tells_when_a_dripping_answer_was_whole(fake: Fake):
    tokens = fake.connect()
    fake.control("fail", endpoint="token", drip_seconds=0.001)
    assert fake.refresh(tokens["refresh_token"]).status_code == 200
    spent, _current = fake.grant(tokens)["refresh_tokens"]
    assert spent["answer_delayed"]
    assert not spent["answer_dropped"]
    (ended_at,) = spent["late_answer_ended_at"]
    assert ended_at > spent["spent_at"] + 0.1


def test_a_client_that_gives_up_waiting_has_spent_its_refresh_token(fake: Fake):
    tokens = fake.connect()
    fake.control("fail", endpoint="token", delay_seconds=0.5)
    fake.http.timeout = httpx.Timeout(0.1)
    with pytest.raises(httpx.ReadTimeout):
        fake.refresh(tokens["refresh_token"])
    fake.http.timeout = httpx.Timeout(10)
    assert fake.grant(tokens)["refreshes"] == 1


def test_a_mutation_makes_the_answer_odd(fake: Fake):
    tokens = fake.connect()
    fake.control("fail", endpoint="token", mutate={"expires_in": "soon", "refresh_token": None})
    answer = fake.refresh(tokens["refresh_token"]).json()
    assert answer["expires_in"] == "soon"
    assert "refresh_token" not in answer
    assert answer["access_token"]


def test_lifetimes_change_while_it_runs(fake: Fake):
    assert fake.control("options", access_token_lifetime_seconds=5) == {
        "access_token_lifetime_seconds": 5
    }
    assert fake.connect()["expires_in"] == 5
    fake.control("options", code_lifetime_seconds=0, rotate_refresh_tokens=False)
    refused(fake.exchange(fake.code()), "invalid_grant")


def test_grants_can_be_had_without_a_browser(fake: Fake):
    seeded = fake.control("grants", count=3, scope="write")["grants"]
    assert len({grant["grant"] for grant in seeded}) == 3
    for grant in seeded:
        assert fake.get("/v1/me", grant).json()["grant"] == grant["grant"]
        assert fake.refresh(grant["refresh_token"]).json()["scope"] == "write"


def test_reset_forgets_counts_and_faults_and_no_grant(fake: Fake):
    tokens = fake.connect()
    fake.control("fail", endpoint="api", count=5, status=500)
    assert fake.get("/v1/me", tokens).status_code == 500
    fake.control("reset")
    assert set(fake.counters().values()) == {0}
    assert fake.get("/v1/me", tokens).status_code == 200


def test_the_ledger_shows_one_grant_or_all_and_no_token(fake: Fake):
    one, other = fake.connect(), fake.connect()
    everything = fake.http.get("/control/ledger")
    assert len(everything.json()["grants"]) == 2
    for tokens in (one, other):
        assert tokens["access_token"] not in everything.text
        assert tokens["refresh_token"] not in everything.text
    named = {"grant": fake.grant(one)["id"]}
    assert fake.http.get("/control/ledger", params=named).json()["grants"] == [fake.grant(one)]
    assert fake.http.get("/control/ledger", params={"grant": "x"}).json() == {"grants": []}
    assert fake.http.get("/control/ledger?unheard=1").status_code == 400


async def test_of_many_refreshes_at_once_with_one_token_one_succeeds(fake: Fake):
    tokens = fake.connect()
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], **CREDENTIALS}
    async with httpx.AsyncClient(base_url=fake.http.base_url) as client:
        answers = await asyncio.gather(*(client.post("/oauth/token", data=form) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 19
    assert fake.counters()["refreshes"] == 1
    assert fake.grant(tokens)["refresh_tokens"][0]["times_presented"] == 20


# Restarts and the rest


def test_a_second_start_still_knows_its_grants(start_fake: StartFake, tmp_path):
    before = start_fake(state_path=tmp_path / "state" / "ignition")
    code = before.code()
    tokens = before.exchange(code).json()
    renewed = before.refresh(tokens["refresh_token"]).json()

    after = start_fake(state_path=tmp_path / "state" / "ignition")

    assert after.get("/v1/me", renewed).status_code == 200
    assert after.grant(tokens) == before.grant(tokens)
    latest = after.refresh(renewed["refresh_token"])
    assert latest.status_code == 200
    refused(after.refresh(tokens["refresh_token"]), "invalid_grant")
    assert after.get("/v1/me", latest.json()).status_code == 401


def test_the_fake_names_itself_and_reports_that_it_is_up(fake: Fake):
    assert "fake Ignition" in fake.http.get("/").text
    assert fake.http.get("/ignition.css").headers["content-type"].startswith("text/css")
    assert fake.http.get("/healthz").json() == {"status": "ok"}
