"""Sessions begun with a key: how they begin and end, and what must not be accepted as one."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from urllib.parse import urlencode

import httpx
import pytest
from cryptography.fernet import Fernet
from tests.conftest import consent, free_port, sha256, sql, wait_until
from tests.service.test_pages_and_callback import hidden, sign_in, status_of

XOFS = {"shake_128", "shake_256"}
SESSION = "ignition-broker-session"
BROWSER = "ignition-broker-browser"


@pytest.fixture
def browser(broker):
    with httpx.Client(base_url=broker.url, timeout=30) as client:
        sign_in(client, broker.admin_key)
        yield client


@pytest.fixture
def age(browser, postgres, database_url):
    """Moves a moment of this browser's session into the past."""

    def aged(column: str, seconds: int) -> None:
        hashed = sha256(browser.cookies[SESSION])
        statement = f"UPDATE sessions SET {column} = {column} - interval '{seconds} s'"
        sql(postgres, database_url, f"{statement} WHERE token_hash = '\\x{hashed}'")

    return aged


def is_signed_in(browser: httpx.Client) -> bool:
    answer = browser.get("/")
    assert answer.status_code in {200, 303}
    return answer.status_code == 200


def with_cookies(broker, header: str) -> httpx.Response:
    return httpx.get(f"{broker.url}/", headers={"Cookie": header.encode()})


def test_a_session_ends_after_half_an_hour_of_nothing(browser, age):
    age("seen_at", 29 * 60)
    assert is_signed_in(browser)
    age("seen_at", 29 * 60)
    assert is_signed_in(browser), "a use moves the end"
    age("seen_at", 31 * 60)
    assert not is_signed_in(browser)
    assert not is_signed_in(browser), "and asking again does not bring it back"


def test_a_session_ends_after_eight_hours_however_much_it_is_used(browser, age):
    age("begun_at", 8 * 3600 - 60)
    assert is_signed_in(browser)
    age("begun_at", 61)
    assert not is_signed_in(browser)


def test_a_stolen_cookie_does_not_outlive_the_sign_out(browser, broker):
    stolen = f"{SESSION}={browser.cookies[SESSION]}"
    assert with_cookies(broker, stolen).status_code == 200
    csrf = hidden(browser.get("/").text, "csrf")
    assert browser.post("/logout", data={"csrf": "wrong"}).status_code == 400
    assert is_signed_in(browser)
    answer = browser.post("/logout", data={"csrf": csrf})
    assert answer.headers["location"] == "/login"
    assert "max-age=0" in answer.headers["set-cookie"].lower()
    assert with_cookies(broker, stolen).status_code == 303
    with broker.client() as admin:
        newest = admin.get("/admin/audit").json()["events"][0]
    assert (newest["action"], newest["actor"]) == ("sign_out", "bootstrap-admin")


def test_no_hash_of_the_bootstrap_key_can_be_tried_against_a_dump(
    browser, broker, postgres, database_url
):
    """An operator chose it; all that a dump has is an HMAC by a key that is not in there."""
    assert is_signed_in(browser)
    rows = sql(postgres, database_url, "SELECT encode(key_hash, 'hex') FROM sessions").splitlines()
    key = broker.admin_key.encode()
    tried = {hashlib.new(name, key).hexdigest() for name in hashlib.algorithms_guaranteed - XOFS}
    assert rows
    assert not tried & set(rows)


def test_a_session_by_the_plain_hash_of_before_has_ended(browser, broker, postgres, database_url):
    plain = sha256(broker.admin_key)
    mine = f"token_hash = '\\x{sha256(browser.cookies[SESSION])}'"
    sql(postgres, database_url, f"UPDATE sessions SET key_hash = '\\x{plain}' WHERE {mine}")
    assert not is_signed_in(browser)


def test_a_session_by_the_bootstrap_key_lives_through_a_change_of_encryption_keys(browser, broker):
    kept = broker.settings["BROKER_ENCRYPTION_KEYS"]
    newer = Fernet.generate_key().decode()

    def is_signed_in_under(keys: str, admin_key: str = broker.admin_key) -> bool:
        other = replace(broker, port=free_port(), logs=[], process=None)
        other.settings = {
            **broker.settings,
            "BROKER_PORT": str(other.port),
            "BROKER_ENCRYPTION_KEYS": keys,
            "BROKER_ADMIN_KEY": admin_key,
        }
        other.start()
        try:
            cookie = f"{SESSION}={browser.cookies[SESSION]}"
            return with_cookies(other, cookie).status_code == 200
        finally:
            other.stop()

    assert is_signed_in_under(f"{kept},{newer}")
    assert is_signed_in_under(f"{newer},{kept}")
    assert not is_signed_in_under(kept, "another-admin-key-of-at-least-32-characters")
    assert is_signed_in(browser)


def test_replicas_share_sessions_and_their_ends(browser, broker):
    other = replace(broker, port=free_port(), logs=[], process=None)
    other.settings = {**broker.settings, "BROKER_PORT": str(other.port)}
    other.start()
    try:
        cookies = {"Cookie": f"{SESSION}={browser.cookies[SESSION]}"}
        shown = httpx.get(f"{other.url}/", headers=cookies)
        assert shown.status_code == 200
        data = {"csrf": hidden(shown.text, "csrf")}
        assert httpx.post(f"{other.url}/logout", data=data, headers=cookies).status_code == 303
        assert not is_signed_in(browser)
    finally:
        other.stop()


def test_a_sign_in_begins_a_new_session_and_ends_the_one_that_was_shown(browser, broker):
    """Session fixation: a session that somebody planted is not the one that is signed in."""
    before = browser.cookies[SESSION]
    sign_in(browser, broker.admin_key)
    assert browser.cookies[SESSION] != before
    assert with_cookies(broker, f"{SESSION}={before}").status_code == 303
    planted = f"{SESSION}={'A' * 43}"
    shown = httpx.get(f"{broker.url}/login", headers={"Cookie": planted})
    cookies = f"{planted}; {BROWSER}={shown.cookies[BROWSER]}"
    data = {"key": broker.admin_key, "csrf": hidden(shown.text, "csrf")}
    answer = httpx.post(f"{broker.url}/login", data=data, headers={"Cookie": cookies})
    assert answer.status_code == 303
    assert answer.cookies[SESSION] != "A" * 43
    assert with_cookies(broker, planted).status_code == 303


def test_a_second_cookie_of_the_name_is_not_preferred_to_the_first(browser, broker):
    """Cookie tossing: an attacker's own session, set by another path or host of the domain."""
    mine = browser.cookies[SESSION]
    with httpx.Client(base_url=broker.url) as attacker:
        sign_in(attacker, broker.make_key("tosser", ["admin"], ["*"]))
        theirs = attacker.cookies[SESSION]
    for header in (
        f"{SESSION}={theirs}; {SESSION}={mine}",
        f"{SESSION}={mine}; {SESSION}={theirs}",
        f"{SESSION}={mine}; {SESSION}=",
    ):
        assert with_cookies(broker, header).status_code == 303
    assert with_cookies(broker, f"x=y; {SESSION}={mine}; z").status_code == 200
    for blank in ("\x85", "\xa0"):
        # For a browser this is another name, so the prefix protects nothing.
        header = f"x=y; {blank}{SESSION}={theirs}".encode("latin-1")
        assert httpx.get(f"{broker.url}/", headers={"Cookie": header}).status_code == 303


@pytest.mark.parametrize("forged", ["x", "é", "A" * 43, "A" * 5000, '"quoted"', "a%00b"])
def test_an_invented_session_is_refused(broker, forged):
    assert with_cookies(broker, f"{SESSION}={forged}").status_code == 303


def test_the_end_of_a_key_ends_the_sessions_that_it_began(broker):
    key = broker.make_key("leaver", ["admin"], ["*"])
    with httpx.Client(base_url=broker.url) as leaver, broker.client() as admin:
        sign_in(leaver, key)
        assert is_signed_in(leaver)
        assert admin.delete("/admin/api-keys/leaver").status_code == 204
        assert not is_signed_in(leaver)
        broker.make_key("leaver", ["admin"], ["*"])
        assert not is_signed_in(leaver)


def test_a_form_is_of_use_in_its_own_session_alone(browser, broker):
    with httpx.Client(base_url=broker.url) as other:
        sign_in(other, broker.admin_key)
        theirs = hidden(other.get("/").text, "csrf")
    for token in (theirs, "", "é", "0" * 64):
        answer = browser.post("/connect", data={"tenant": "acme", "csrf": token})
        assert answer.status_code == 400
        assert "form is stale" in answer.text


FORMS = [
    ("/connect", {"tenant": "acme"}),
    ("/disconnect", {"tenant": "acme"}),
    ("/logout", {}),
    ("/api-keys/new", {"name": "forged", "scopes": "admin"}),
    ("/api-keys/revoke", {"name": "forged"}),
]


@pytest.mark.parametrize(("path", "fields"), FORMS)
def test_every_form_of_a_session_is_guarded(browser, broker, path, fields):
    csrf = hidden(browser.get("/").text, "csrf")
    assert browser.post(path, data=fields).status_code == 400
    cross = {"Sec-Fetch-Site": "cross-site"}
    answer = browser.post(path, data={**fields, "csrf": csrf}, headers=cross)
    assert answer.status_code == 400
    assert "another site" in answer.text
    assert is_signed_in(browser)
    if path != "/logout":
        signed_out = httpx.post(broker.url + path, data={**fields, "csrf": csrf})
        assert signed_out.status_code == 401
        assert "session has ended" in signed_out.text


def test_a_page_of_another_site_cannot_click_a_link(broker):
    with broker.client() as admin:
        link = admin.post("/admin/tenants/clicked/connect-link").json()["url"]
    assert httpx.post(link, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 400
    assert httpx.post(link, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303


def test_a_sign_in_of_long_ago_has_to_be_renewed_for_a_disconnect(browser, broker, age):
    csrf = hidden(browser.get("/").text, "csrf")
    consent(browser, browser.post("/connect", data={"tenant": "kept", "csrf": csrf}))
    age("authenticated_at", 11 * 60)
    assert browser.get("/").status_code == 200
    asked = browser.post("/disconnect", data={"tenant": "kept", "csrf": csrf})
    assert asked.headers["location"] == "/login?return_to=%2Fdisconnect%3Ftenant%3Dkept"
    assert browser.get("/disconnect?tenant=kept").headers["location"] == asked.headers["location"]
    assert status_of(broker, "kept") == "connected"
    form = browser.get(asked.headers["location"]).text
    assert "bootstrap-admin" in form
    data = {name: hidden(form, name) for name in ("csrf", "return_to")}
    answer = browser.post("/login", data={**data, "key": broker.admin_key})
    assert answer.headers["location"] == "/disconnect?tenant=kept"
    page = browser.get("/disconnect?tenant=kept").text
    assert status_of(broker, "kept") == "connected", "a sign-in repeats no form"
    data = {"tenant": "kept", "csrf": hidden(page, "csrf")}
    assert browser.post("/disconnect", data=data).headers["location"] == "/tenant?tenant=kept"
    assert status_of(broker, "kept") == "disconnected"


def sign_in_again(browser: httpx.Client, broker, asked: httpx.Response) -> httpx.Response:
    """From the redirect to the sign-in page to where it leads."""
    form = browser.get(asked.headers["location"]).text
    assert "last ten minutes" in form
    data = {name: hidden(form, name) for name in ("csrf", "return_to")}
    return browser.post("/login", data={**data, "key": broker.admin_key})


def test_a_sign_in_of_long_ago_has_to_be_renewed_to_replace_a_grant(browser, broker, age):
    csrf = hidden(browser.get("/").text, "csrf")
    form = {"tenant": "replaced", "csrf": csrf}
    age("authenticated_at", 11 * 60)
    assert consent(browser, browser.post("/connect", data=form)).status_code == 200, (
        "none was there"
    )
    where = "/login?return_to=%2Fauth%3Ftenant%3Dreplaced"
    asked = browser.post("/connect", data=form)
    assert asked.headers["location"] == where
    assert browser.get("/auth?tenant=replaced").headers["location"] == where
    answer = sign_in_again(browser, broker, asked)
    assert answer.headers["location"] == "/auth?tenant=replaced"
    assert consent(browser, browser.get("/auth?tenant=replaced")).status_code == 200


def test_a_refused_grant_is_replaced_without_a_new_sign_in(
    browser, broker, age, postgres, database_url
):
    broker.connect("refused")
    refused = "UPDATE grants SET status = 'reauthorization_required' WHERE tenant_id = 'refused'"
    sql(postgres, database_url, refused)
    age("authenticated_at", 11 * 60)
    assert consent(browser, browser.get("/auth?tenant=refused")).status_code == 200


def test_a_sign_in_of_long_ago_has_to_be_renewed_to_revoke_a_key(browser, broker, age):
    service = broker.make_key("kept-alive", ["token"], ["*"])
    form = {"name": "kept-alive", "csrf": hidden(browser.get("/").text, "csrf")}
    age("authenticated_at", 11 * 60)
    asked = browser.post("/api-keys/revoke", data=form)
    page = "/api-keys/revoke?name=kept-alive"
    assert asked.headers["location"] == f"/login?{urlencode({'return_to': page})}"
    with broker.client(service) as caller:
        assert caller.get("/token/nobody").status_code == 404, "the key works"
        assert sign_in_again(browser, broker, asked).headers["location"] == page
        form["csrf"] = hidden(browser.get(page).text, "csrf")
        assert browser.post("/api-keys/revoke", data=form).headers["location"] == "/api-keys"
        wait_until(lambda: caller.get("/token/nobody").status_code == 401, 2, "the key's end")


def test_the_session_is_stored_by_its_hash_alone(browser, postgres, database_url):
    token = browser.cookies[SESSION]
    rows = sql(postgres, database_url, "SELECT * FROM sessions")
    assert sha256(token) in rows
    assert token not in rows


def test_sessions_of_yesterday_are_cleared(browser, age, postgres, database_url):
    hashed = sha256(browser.cookies[SESSION])
    age("begun_at", 25 * 3600)
    count = f"SELECT count(*) FROM sessions WHERE token_hash = '\\x{hashed}'"
    wait_until(lambda: sql(postgres, database_url, count) == "0", 30, "the clearing")
