"""A revocation ends what was begun before it: links, sign-ins, renewals."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest
from tests.conftest import Broker, Fake, consent, decide, sha256, sql, wait_until
from tests.service.test_pages_and_callback import hidden, sign_in, status_of

NAME = "leaver"


@dataclass
class Stage:
    """The service, a browser, and ways to end what made something."""

    broker: Broker
    fake: Fake
    postgres: object
    database_url: str
    browser: httpx.Client

    def sql(self, statement: str) -> str:
        return sql(self.postgres, self.database_url, statement)

    def link(self, tenant: str, key: str | None = None) -> str:
        with self.broker.client(key) as admin:
            answer = admin.post(f"/admin/tenants/{tenant}/connect-link")
        assert answer.status_code == 201, answer.text
        return answer.json()["url"]

    def clicked(self, link: str) -> str:
        """The callback's address, after the click on the link and the consent."""
        answer = self.browser.post(link)
        assert answer.status_code == 303, answer.text
        return decide(self.browser, answer.headers["location"])

    def grant(self, tenant: str) -> str:
        return self.sql(f"SELECT status, version FROM grants WHERE tenant_id = '{tenant}'")

    def end(self, way: str) -> None:
        with self.broker.client() as admin:
            if way == "revoked" or way == "given again":
                assert admin.delete(f"/admin/api-keys/{NAME}").status_code == 204
            if way == "given again":
                self.broker.make_key(NAME, ["admin"], [])
            if way == "rotated":
                body = {"grace_seconds": 0}
                assert admin.post(f"/admin/api-keys/{NAME}/rotate", json=body).is_success
            if way == "expired":
                past = "expires_at = now() - interval '1 second'"
                self.sql(f"UPDATE api_keys SET {past} WHERE name = '{NAME}'")


WAYS = ("revoked", "given again", "rotated", "expired")


@pytest.fixture
def stage(broker, fake, postgres, database_url):
    with httpx.Client(base_url=broker.url, timeout=30) as browser:
        yield Stage(broker, fake, postgres, database_url, browser)


@pytest.fixture
def key(broker):
    with broker.client() as admin:
        admin.delete(f"/admin/api-keys/{NAME}")
    return broker.make_key(NAME, ["admin"], [])


def assert_refused(answer: httpx.Response, *words: str) -> None:
    assert answer.status_code == 400, answer.text
    assert 'id="failed"' in answer.text
    assert "Nothing was stored" in answer.text
    for word in words:
        assert word in answer.text


def during_the_exchange(stage: Stage, callback: str, act) -> httpx.Response:
    """The callback's page, where ``act`` is done after the code was sent and before Ignition
    answers."""
    stage.fake.fail("token", 1, delay_seconds=1.0)
    exchanged = stage.fake.counters()["code_exchanges"]
    with ThreadPoolExecutor(1) as pool:
        page = pool.submit(stage.browser.get, callback)
        wait_until(lambda: stage.fake.counters()["code_exchanges"] > exchanged, what="the exchange")
        act()
        assert not page.done(), "it was done before Ignition had answered"
        return page.result()


@pytest.mark.parametrize("way", WAYS)
def test_a_link_ends_with_the_key_that_made_it(stage, key, way):
    assert stage.broker.connect("kept").status_code == 200
    before = stage.grant("kept")
    unused, used = stage.link("kept", key), stage.link("kept", key)
    callback = stage.clicked(used)
    stage.end(way)
    assert stage.browser.get(unused).status_code == 410
    assert stage.browser.post(unused).status_code == 410
    assert_refused(stage.browser.get(callback), "no longer allowed")
    assert stage.grant("kept") == before


@pytest.mark.parametrize("way", WAYS)
def test_the_key_s_end_counts_while_the_code_is_exchanged(stage, key, way):
    callback = stage.clicked(stage.link(f"midway-{way.replace(' ', '-')}", key))
    page = during_the_exchange(stage, callback, lambda: stage.end(way))
    assert_refused(page, "no longer allowed")
    assert status_of(stage.broker, f"midway-{way.replace(' ', '-')}") == "disconnected"


def test_a_link_lives_as_long_as_its_rotated_key_has_grace(stage, key):
    links = [stage.link("graced", key) for _ in range(2)]
    with stage.broker.client() as admin:
        admin.post(f"/admin/api-keys/{NAME}/rotate", json={"grace_seconds": 600})
    assert stage.browser.get(links[0]).status_code == 200
    stage.sql("UPDATE api_key_predecessors SET expires_at = now() - interval '1 second'")
    assert stage.browser.get(links[0]).status_code == 410
    stage.sql("DELETE FROM api_key_predecessors")
    assert stage.browser.post(links[1]).status_code == 410


def test_a_link_of_a_key_that_is_an_admins_no_longer_is_spent(stage, key):
    link = stage.link("demoted", key)
    stage.sql(f"UPDATE api_keys SET scopes = '{{token}}' WHERE name = '{NAME}'")
    assert stage.browser.post(link).status_code == 410


SESSION_ENDS = {
    "ended by an operator": "ended_at = now()",
    "too old": "begun_at = now() - interval '9 hours'",
    "idle": "seen_at = now() - interval '31 minutes'",
}


@pytest.mark.parametrize("way", ["signed out", "revoked", *SESSION_ENDS])
def test_a_sign_in_that_a_session_began_ends_with_it(stage, key, way):
    sign_in(stage.browser, key)
    answer = stage.browser.get("/auth?tenant=by-session")
    callback = decide(stage.browser, answer.headers["location"])
    if way == "signed out":
        csrf = hidden(stage.browser.get("/").text, "csrf")
        assert stage.browser.post("/logout", data={"csrf": csrf}).status_code == 303
    elif way == "revoked":
        stage.end(way)
    else:
        token = sha256(stage.browser.cookies["ignition-broker-session"])
        ended = SESSION_ENDS[way]
        stage.sql(f"UPDATE sessions SET {ended} WHERE token_hash = '\\x{token}'")
    assert_refused(stage.browser.get(callback), "no longer allowed")
    assert status_of(stage.broker, "by-session") == "disconnected"


def test_a_sign_in_begun_before_a_disconnect_connects_nothing(stage):
    assert stage.broker.connect("parted").status_code == 200
    link = stage.link("parted")
    callback = stage.clicked(link)
    with stage.broker.client() as admin:
        assert admin.post("/admin/tenants/parted/disconnect").status_code == 200
    assert_refused(stage.browser.get(callback), "overtaken")
    assert status_of(stage.broker, "parted") == "disconnected"
    assert stage.broker.connect("parted").status_code == 200, "what is begun afterwards connects"


def test_a_disconnect_counts_while_the_code_is_exchanged(stage):
    """What was exchanged is revoked at Ignition, since nobody has it."""
    callback = stage.clicked(stage.link("parting"))
    revoked = stage.fake.counters()["revocations"]

    def leave() -> None:
        with stage.broker.client() as admin:
            assert admin.post("/admin/tenants/parting/disconnect").status_code == 200

    assert_refused(during_the_exchange(stage, callback, leave), "overtaken")
    assert status_of(stage.broker, "parting") == "disconnected"
    assert stage.fake.counters()["revocations"] == revoked + 1


def test_a_connect_ends_the_tenant_s_other_links_and_sign_ins(stage):
    older, unused = stage.link("overtaken"), stage.link("overtaken")
    callback = stage.clicked(older)
    assert stage.broker.connect("overtaken").status_code == 200
    connected = stage.grant("overtaken")
    revocations = stage.fake.counters()["revocations"]
    assert stage.browser.get(unused).status_code == 410
    assert stage.browser.post(unused).status_code == 410
    assert_refused(stage.browser.get(callback), "overtaken")
    assert stage.grant("overtaken") == connected
    assert stage.fake.counters()["revocations"] == revocations, "it could end the good grant too"
    page = consent(stage.browser, stage.browser.post(stage.link("overtaken")))
    assert page.status_code == 200, "a link that was made since is good"
    assert stage.grant("overtaken") != connected


def test_of_two_sign_ins_at_once_one_connects(stage):
    with httpx.Client(timeout=30) as another, ThreadPoolExecutor(2) as pool:
        callbacks = []
        for browser in (stage.browser, another):
            answer = browser.post(stage.link("contested"))
            callbacks.append(decide(browser, answer.headers["location"]))
        stage.fake.fail("token", 2, delay_seconds=0.5)
        pages = list(pool.map(lambda b, c: b.get(c), (stage.browser, another), callbacks))
    assert sorted(page.status_code for page in pages) == [200, 400]
    assert stage.grant("contested") == "connected|1"


def waiting_call(stage: Stage, tenant: str, key: str, method: str, path: str, **more):
    """The answer to a call that waits for Ignition when its key is revoked."""
    stage.broker.connect(tenant)
    stage.sql(f"UPDATE grants SET expires_at = now() WHERE tenant_id = '{tenant}'")
    stage.fake.fail("token", 1, delay_seconds=1.2)
    asked = stage.fake.counters()["token_requests"]
    with stage.broker.client(key) as caller, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(caller.request, method, path, **more)
        wait_until(lambda: stage.fake.counters()["token_requests"] > asked, what="the renewal")
        stage.end("revoked")
        assert not answer.done()
        return answer.result()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/token/waiting"),
        ("POST", "/token/waiting/refresh"),
        ("GET", "/forward-auth/waiting"),
    ],
)
def test_a_key_that_is_revoked_while_its_call_waits_is_given_no_token(stage, key, method, path):
    answer = waiting_call(stage, "waiting", key, method, path)
    assert answer.status_code == 401, answer.text
    assert "access_token" not in answer.text
    assert "broker-token-sha256" not in answer.headers
    wait_until(lambda: "connected" in stage.grant("waiting"), what="the renewal's end")
    assert status_of(stage.broker, "waiting") == "connected", "what was renewed is stored"


def test_a_renewal_whose_body_comes_after_the_key_s_end_is_not_done(stage, key):
    stage.broker.connect("slow-body")
    before = stage.fake.counters()["token_requests"]
    body = b'{"rejected_token_sha256": "' + b"0" * 64 + b'"}'

    def slowly():
        yield body[:5]
        stage.end("revoked")
        yield body[5:]

    with stage.broker.client(key) as caller:
        answer = caller.post("/token/slow-body/refresh", content=slowly())
    assert answer.status_code == 401, answer.text
    assert stage.fake.counters()["token_requests"] == before


def test_links_are_listed_and_revoked(stage, key):
    used, revoked, open_one = (stage.link("listed", key) for _ in range(3))
    with stage.broker.client() as admin:
        links = admin.get("/admin/tenants/listed/connect-links").json()["connect_links"]
        assert len(links) == 3
        for link in links:
            assert set(link) == {"id", "expires_at", "created_by", "used_at"}
            assert (link["created_by"], link["used_at"]) == (NAME, None)
            assert link["id"] not in used + revoked + open_one
        by_hash = {
            stage.sql(
                f"SELECT id FROM connect_links WHERE token_hash = '\\x{sha256(url[-43:])}'"
            ): url
            for url in (used, revoked, open_one)
        }
        ids = {url: link_id for link_id, url in by_hash.items()}
        callback = stage.clicked(used)
        path = "/admin/tenants/listed/connect-links"
        assert admin.delete(f"{path}/{ids[revoked]}").status_code == 204
        assert stage.browser.get(revoked).status_code == 410
        assert stage.browser.post(revoked).status_code == 410
        assert admin.delete(f"{path}/{ids[revoked]}").status_code == 404
        assert admin.delete(f"{path}/nonsense").status_code == 404
        assert admin.delete(f"/admin/tenants/other/connect-links/{ids[used]}").status_code == 404
        listed = {link["id"]: link for link in admin.get(path).json()["connect_links"]}
        assert set(listed) == {ids[used], ids[open_one]}
        assert listed[ids[used]]["used_at"] is not None
        assert admin.delete(f"{path}/{ids[used]}").status_code == 204
        assert_refused(stage.browser.get(callback), "revoked")
        stage.end("revoked")
        assert admin.get(path).json()["connect_links"] == [], "what no longer works is not listed"
        events = admin.get("/admin/audit", params={"tenant": "listed"}).json()["events"]
        found = [event["detail"] for event in events if event["action"] == "connect_link_revoke"]
        assert [detail["link"] for detail in found] == [ids[used], ids[revoked]]
        assert admin.get("/admin/tenants/nobody-there/connect-links").status_code == 404
        assert admin.delete("/admin/tenants/nobody-there/connect-links/x").status_code == 404


def test_a_link_that_is_revoked_while_its_code_is_exchanged_connects_nothing(stage):
    callback = stage.clicked(stage.link("recalled"))
    path = "/admin/tenants/recalled/connect-links"

    def recall() -> None:
        with stage.broker.client() as admin:
            (link,) = admin.get(path).json()["connect_links"]
            assert admin.delete(f"{path}/{link['id']}").status_code == 204

    assert_refused(during_the_exchange(stage, callback, recall), "revoked")
    assert status_of(stage.broker, "recalled") == "disconnected"


def test_links_are_listed_and_revoked_at_the_command_line(stage, key):
    stage.link("at-cli", key)
    bootstraps = stage.link("at-cli")
    shell = stage.broker.command
    made = shell("tenants", "connect-link", "at-cli")
    listed = shell("tenants", "links", "at-cli", "--json")
    assert listed.returncode == 0, listed.stderr
    rows = json.loads(listed.stdout)
    assert {row["created_by"] for row in rows} == {NAME, "bootstrap-admin", "cli"}
    by_cli = next(row["id"] for row in rows if row["created_by"] == "cli")
    assert by_cli in shell("tenants", "links", "at-cli").stdout
    revoked = shell("tenants", "revoke-link", "at-cli", by_cli)
    assert revoked.returncode == 0, revoked.stderr
    assert stage.browser.get(made.stdout.strip()).status_code == 410
    assert stage.browser.get(bootstraps).status_code == 200
    stage.end("rotated")
    rows = json.loads(shell("tenants", "links", "at-cli", "--json").stdout)
    assert [row["created_by"] for row in rows] == ["bootstrap-admin"]
    for wrong in (("links", "nobody-there"), ("revoke-link", "at-cli", "nonsense")):
        ended = shell("tenants", *wrong)
        assert (ended.returncode, len(ended.stderr.strip().splitlines())) == (1, 1)
