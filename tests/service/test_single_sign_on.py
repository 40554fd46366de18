"""Signing on at an identity provider, walked over HTTP, and the attacks on it."""

from __future__ import annotations

import json
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from cryptography.fernet import Fernet
from joserfc import jws
from joserfc.jwk import RSAKey
from starlette.responses import JSONResponse, PlainTextResponse
from tests.conftest import sql
from tests.service.oidc_provider import OidcProvider, sign_on
from tests.service.test_pages_and_callback import hidden

from ignition_broker.cipher import Cipher

SIGN_ON = "ignition-broker-sign-on"
SESSION = "ignition-broker-session"


@pytest.fixture(scope="module")
def oidc() -> Iterator[OidcProvider]:
    provider = OidcProvider()
    yield provider
    provider.hang_up()


@pytest.fixture(autouse=True)
def _provider_behaves(oidc):
    oidc.reset()
    yield
    oidc.reset()


@pytest.fixture(scope="module")
def more_settings(oidc) -> dict[str, str]:
    return {
        "BROKER_OIDC_ISSUER": oidc.issuer,
        "BROKER_OIDC_CLIENT_ID": oidc.client_id,
        "BROKER_OIDC_CLIENT_SECRET": oidc.client_secret,
        "BROKER_OIDC_ADMIN_GROUPS": "owners, broker-admins",
    }


@pytest.fixture
def browser(broker):
    with httpx.Client(base_url=broker.url, timeout=30) as client:
        yield client


def begin(browser: httpx.Client, return_to: str = "/") -> str:
    """The click on our page; the provider's address."""
    form = browser.get("/login", params={"return_to": return_to}).text
    assert "Sign in with single sign-on" in form
    data = {"csrf": hidden(form, "csrf"), "return_to": return_to}
    answer = browser.post("/login/oidc", data=data)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def signed_on(browser: httpx.Client, return_to: str = "/") -> httpx.Response:
    return browser.get(sign_on(begin(browser, return_to)))


def is_signed_in(browser: httpx.Client) -> bool:
    return browser.get("/").status_code == 200


def refusal(browser: httpx.Client, answer: httpx.Response, status: int = 400) -> str:
    """The page; nobody is signed in."""
    assert answer.status_code == status, answer.text
    assert not is_signed_in(browser)
    assert answer.headers["cache-control"] == "no-store"
    return answer.text


def events(broker, action: str) -> list[dict]:
    with broker.client() as admin:
        found = admin.get("/admin/audit").json()["events"]
    return [event for event in found if event["action"] == action]


def test_an_admin_signs_on_and_the_trail_names_the_person(browser, broker, oidc):
    answer = signed_on(browser, "/auth?tenant=acme")
    assert (answer.status_code, answer.headers["location"]) == (303, "/auth?tenant=acme")
    assert "jo@example.com (oidc:u-1)" in browser.get("/").text
    asked = oidc.asked[-1]
    assert asked["redirect_uri"] == f"{broker.url}/login/oidc/callback"
    assert asked["scope"] == "openid profile email"
    assert min(len(asked["state"]), len(asked["nonce"]), len(asked["code_challenge"])) >= 43
    assert "prompt" not in asked
    newest = events(broker, "sign_in")[0]
    assert newest["outcome"] == "done"
    assert newest["actor"] == "jo@example.com (oidc:u-1)"
    assert newest["detail"]["subject"] == "u-1"
    assert browser.get("/auth?tenant=acme").status_code == 303
    assert events(broker, "connect")[0]["actor"] == "jo@example.com (oidc:u-1)"


def test_whoever_is_in_no_admins_group_is_told_which_setting_to_ask_for(browser, broker, oidc):
    oidc.person["groups"] = ["staff"]
    page = refusal(browser, signed_on(browser), 403)
    assert "BROKER_OIDC_ADMIN_GROUPS" in page
    newest = events(broker, "sign_in")[0]
    assert (newest["outcome"], newest["detail"]["subject"]) == ("denied", "u-1")


@pytest.mark.parametrize("groups", [None, {"broker-admins": True}, ["broker-admins-2"], 7])
def test_groups_in_another_shape_make_nobody_an_admin(browser, oidc, groups):
    oidc.person["groups"] = groups
    refusal(browser, signed_on(browser), 403)


def test_a_single_group_may_come_bare(browser, oidc):
    oidc.person["groups"] = "owners"
    assert signed_on(browser).status_code == 303
    assert is_signed_in(browser)


def test_a_form_from_elsewhere_begins_no_sign_on(browser, broker):
    """Login CSRF: the pre-session token, and what the browser says of the form's origin."""
    assert browser.post("/login/oidc", data={"return_to": "/"}).status_code == 400
    csrf = hidden(browser.get("/login").text, "csrf")
    with httpx.Client(base_url=broker.url) as victim:
        victim.get("/login")
        assert victim.post("/login/oidc", data={"csrf": csrf}).status_code == 400
    for site in ("cross-site", "same-site"):
        answer = browser.post("/login/oidc", data={"csrf": csrf}, headers={"Sec-Fetch-Site": site})
        assert answer.status_code == 400
    assert browser.cookies.get(SIGN_ON) is None


def test_the_attackers_callback_signs_the_victim_on_nowhere(browser, broker):
    callback = sign_on(begin(browser))
    with httpx.Client(base_url=broker.url) as victim:
        refusal(victim, victim.get(callback))
        begin(victim)
        page = refusal(victim, victim.get(callback))
        assert "not begun in this browser" in page


def test_a_callback_serves_once_even_for_who_kept_the_cookie(browser, broker, oidc):
    location = begin(browser)
    kept = browser.cookies.get(SIGN_ON)
    assert browser.get(sign_on(location)).status_code == 303
    assert browser.cookies.get(SIGN_ON) is None
    with httpx.Client(base_url=broker.url, cookies={SIGN_ON: kept}) as thief:
        # A new code for the old state, which the provider gives to anybody with the address.
        page = refusal(thief, thief.get(sign_on(location)))
        assert "used before" in page


def test_a_failed_callback_cannot_be_repeated(browser, oidc):
    oidc.change = lambda claims: claims.update(nonce="other")
    location = begin(browser)
    refusal(browser, browser.get(sign_on(location)))
    oidc.reset()
    refusal(browser, browser.get(sign_on(location)))


def test_a_sign_on_has_to_end_in_time(browser, broker):
    """A browser that keeps its cookie for longer than it was told to."""
    callback = sign_on(begin(browser))
    keys = Cipher([broker.settings["BROKER_ENCRYPTION_KEYS"]]).derived_keys("ignition-broker seal")
    seal = Fernet(urlsafe_b64encode(keys[0]))
    fields = json.loads(seal.decrypt(browser.cookies.get(SIGN_ON)))
    begun_at = fields[4]
    for age in (601, -60):
        fields[4] = begun_at - age
        aged = seal.encrypt(json.dumps(fields).encode()).decode()
        with httpx.Client(base_url=broker.url, cookies={SIGN_ON: aged}) as slow:
            assert "too long" in refusal(slow, slow.get(callback))
    fields[4] = begun_at - 500
    aged = seal.encrypt(json.dumps(fields).encode()).decode()
    with httpx.Client(base_url=broker.url, cookies={SIGN_ON: aged}) as slow:
        assert slow.get(callback).status_code == 303


ALTERED = {
    "another nonce": ("nonce", {"nonce": "n" * 43}),
    "no nonce": ("nonce", {"nonce": None}),
    "another audience": ("aud", {"aud": "other-client"}),
    "no audience": ("aud", {"aud": None}),
    "an audience of two and no azp": ("azp", {"aud": ["broker", "other"]}),
    "another azp": ("azp", {"azp": "other"}),
    "another issuer": ("iss", {"iss": "https://evil.example"}),
    "an issuer with a slash more": ("iss", {"iss": "http://localhost/"}),
    "an end in the past": ("exp", {"exp": 1_000_000_000}),
    "no end": ("exp", {"exp": None}),
    "an end that is no number": ("exp", {"exp": "tomorrow"}),
    "an end that is true": ("exp", {"exp": True}),
    "a beginning in the future": ("iat", {"iat": 90_000_000_000}),
    "not valid yet": ("nbf", {"nbf": 90_000_000_000}),
    "no subject": ("sub", {"sub": None}),
    "an empty subject": ("sub", {"sub": ""}),
    "a subject of two lines": ("sub", {"sub": "a\nb"}),
}


@pytest.mark.parametrize("altered", ALTERED)
def test_an_id_token_with_a_wrong_claim_signs_nobody_on(browser, oidc, altered):
    claim, values = ALTERED[altered]
    oidc.change = lambda claims: claims.update(values)
    page = refusal(browser, signed_on(browser))
    assert f"refused: {claim}:" in page


def test_an_id_token_by_another_key_or_by_none_signs_nobody_on(browser, oidc):
    other = RSAKey.generate_key(2048)
    forgeries = [
        lambda claims: oidc.signed(claims, other),
        lambda claims: oidc.signed(claims, other, kid="unheard-of"),
        oidc.signed_by_nobody,
        oidc.signed_with_what_all_know,
        lambda claims: oidc.signed(claims)[:-8] + "AAAAAAAA",
        lambda claims: "no.id.token",
        lambda claims: "",
    ]
    for forge in forgeries:
        oidc.sign = forge
        page = refusal(browser, signed_on(browser))
        assert "refused: the signature" in page


@pytest.mark.filterwarnings("ignore:Key size")
def test_an_id_token_by_a_short_key_of_the_providers_own_signs_nobody_on(browser, broker, oidc):
    before = oidc.key
    oidc.key = RSAKey.generate_key(1024, {"kid": "short", "use": "sig", "alg": "RS256"})
    oidc.sign = lambda claims: oidc.signed(claims, kid="short")
    try:
        assert "refused: the signature" in refusal(browser, signed_on(browser))
    finally:
        oidc.key = before
    assert "RSA of 1024 bits" in broker.log_text()


@pytest.mark.parametrize("depth", [100, 500, 20_000])
def test_an_id_token_that_is_nested_deeply_signs_nobody_on(browser, oidc, depth):
    def nested(claims):
        payload = json.dumps(claims)[:-1] + ', "deep": ' + "[" * depth + "]" * depth + "}"
        return jws.serialize_compact({"alg": "RS256", "kid": "one"}, payload, oidc.key)

    oidc.sign = nested
    assert "refused: the signature" in refusal(browser, signed_on(browser))


def test_the_key_may_be_changed_at_the_provider(browser, oidc):
    assert signed_on(browser).status_code == 303
    before = oidc.key
    oidc.key = RSAKey.generate_key(2048, {"kid": "two", "use": "sig", "alg": "RS256"})
    oidc.sign = lambda claims: oidc.signed(claims, kid="two")
    assert signed_on(browser).status_code == 303
    oidc.sign = lambda claims: oidc.signed(claims, before)
    assert signed_on(browser).status_code == 400
    oidc.key = before
    oidc.sign = oidc.signed
    assert signed_on(browser).status_code == 303


def test_a_code_of_another_sign_on_is_of_no_use(browser, broker):
    """Code injection: the code is bound to the verifier of the browser that began (PKCE)."""
    with httpx.Client(base_url=broker.url) as victim:
        stolen = parse_qs(urlsplit(sign_on(begin(victim))).query)["code"][0]
    callback = sign_on(begin(browser))
    page = refusal(browser, browser.get(re.sub(r"code=[^&]+", f"code={stolen}", callback)))
    assert "invalid_grant" in page


def test_an_answer_of_another_issuer_is_not_followed(browser, oidc):
    """Mix-up (RFC 9207): compared wherever it is there."""
    oidc.callback_issuer = "https://evil.example"
    issued = len(oidc.id_tokens)
    assert "issuer_mismatch" in refusal(browser, signed_on(browser))
    assert len(oidc.id_tokens) == issued
    oidc.callback_issuer = oidc.issuer
    assert signed_on(browser).status_code == 303


def test_a_refusal_by_the_provider_is_told_and_its_markup_escaped(browser):
    state = parse_qs(urlsplit(begin(browser)).query)["state"][0]
    query = {"state": state, "error": "access_denied", "error_description": "<script>x</script>"}
    page = refusal(browser, browser.get("/login/oidc/callback", params=query))
    assert "access_denied" in page
    assert "<script>" not in page


@pytest.mark.parametrize(
    "query", ["", "?code=x", "?state=%FF&code=x", "?state=a&state=b&code=x", "?state=&code="]
)
def test_a_callback_that_nobody_began_is_a_page(browser, query):
    refusal(browser, browser.get(f"/login/oidc/callback{query}"))


def test_a_token_answer_that_is_none_is_a_page(browser, oidc):
    answers = [
        (JSONResponse({"access_token": "x", "token_type": "Bearer"}), 400, "BROKER_OIDC_SCOPES"),
        (JSONResponse({"error": "invalid_client"}, 401), 400, "invalid_client"),
        (JSONResponse([1]), 503, "not JSON"),
        (PlainTextResponse("busy", 503), 503, "HTTPStatusError"),
        (PlainTextResponse("hello"), 503, "not JSON"),
        (PlainTextResponse("[" * 100_000), 503, "not JSON"),
    ]
    for answer, status, told in answers:
        oidc.token_answer = answer
        assert told in refusal(browser, signed_on(browser), status)


def test_a_dead_provider_is_told_and_the_key_still_signs_in(browser, broker, oidc):
    location = begin(browser)
    callback = sign_on(location)
    oidc.hang_up()
    try:
        page = refusal(browser, browser.get(callback), 503)
        assert "can&#39;t be reached" in page
        form = browser.get("/login").text
        data = {"key": broker.admin_key, "csrf": hidden(form, "csrf"), "return_to": "/"}
        assert browser.post("/login", data=data).status_code == 303
        assert is_signed_in(browser)
    finally:
        oidc.listen()


def test_whatever_lies_in_the_cookie_of_a_sign_on_it_is_a_page(browser, broker):
    for forged in ("x", "gAAAAA" + "A" * 80, "é"):
        answer = browser.get(
            "/login/oidc/callback?state=a&code=b",
            headers={"Cookie": f"{SIGN_ON}={forged}".encode()},
        )
        assert answer.status_code == 400


def test_a_change_of_the_groups_ends_the_sessions_that_hang_on_them(
    browser, broker, postgres, database_url
):
    assert signed_on(browser).status_code == 303
    assert is_signed_in(browser)
    sql(postgres, database_url, "UPDATE sessions SET groups = '{left}' WHERE issuer IS NOT NULL")
    assert not is_signed_in(browser)


def test_disconnecting_asks_whoever_signed_on_long_ago_to_do_it_again(browser, broker, oidc):
    broker.connect("again")
    assert signed_on(browser).status_code == 303
    oidc.auth_time = int(time.time()) - 3600
    # The provider remembers the sign-on: the session is new, but `auth_time` is old.
    with httpx.Client(base_url=broker.url, timeout=30) as other:
        assert signed_on(other).status_code == 303
        csrf = hidden(other.get("/").text, "csrf")
        asked = other.post("/disconnect", data={"tenant": "again", "csrf": csrf})
        assert asked.headers["location"] == "/login?return_to=%2Fdisconnect%3Ftenant%3Dagain"
        assert status_of(broker, "again") == "connected"
        location = begin(other, "/disconnect?tenant=again")
        query = parse_qs(urlsplit(location).query)
        assert (query["prompt"], query["max_age"]) == (["login"], ["0"])
        answer = other.get(sign_on(location))
        assert answer.headers["location"] == "/disconnect?tenant=again"
        confirm = other.get("/disconnect?tenant=again")
        assert "Disconnect again?" in confirm.text
        assert status_of(broker, "again") == "connected"
        data = {"tenant": "again", "csrf": hidden(confirm.text, "csrf")}
        assert other.post("/disconnect", data=data).headers["location"] == "/tenant?tenant=again"
    assert status_of(broker, "again") == "disconnected"


@pytest.mark.parametrize("fault", ["ignores_prompt", "forgets_auth_time"])
def test_a_provider_that_did_not_ask_anew_confirms_nothing(browser, oidc, fault):
    assert signed_on(browser).status_code == 303
    oidc.auth_time = int(time.time()) - 3600
    setattr(oidc, fault, True)
    answer = browser.get(sign_on(begin(browser, "/api-keys/new")))
    assert answer.status_code == 400
    assert "auth_time" in answer.text


def test_without_an_auth_time_the_sign_in_does_not_count_as_fresh(browser, broker, oidc):
    oidc.forgets_auth_time = True
    assert signed_on(browser).status_code == 303
    assert browser.get("/api-keys/new").headers["location"].startswith("/login?return_to=")


def status_of(broker, tenant: str) -> str:
    with broker.client() as admin:
        return admin.get(f"/admin/tenants/{tenant}").json()["status"]


def test_no_secret_of_a_sign_on_is_logged_or_stored(browser, broker, oidc, postgres, database_url):
    location = begin(browser)
    kept = browser.cookies.get(SIGN_ON)
    callback = sign_on(location)
    assert browser.get(callback).status_code == 303
    code = parse_qs(urlsplit(callback).query)["code"][0]
    state = parse_qs(urlsplit(callback).query)["state"][0]
    session = browser.cookies.get(SESSION)
    rows = sql(postgres, database_url, "SELECT * FROM sessions; SELECT * FROM audit_events")
    told = broker.log_text() + rows
    for secret in (kept, code, state, session, oidc.client_secret, oidc.id_tokens[-1]):
        assert secret not in told
        assert secret.encode().hex() not in told
