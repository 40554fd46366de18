"""What the audit trail holds after calls, denials, sign-ins, deaths, and Postgres being away."""

from __future__ import annotations

import concurrent.futures
import json
import re
import signal
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from tests.conftest import sha256, sql, wait_until


@pytest.fixture(scope="module")
def more_settings():
    # Here hundreds of strangers call from one address.
    return {"BROKER_FAILED_ATTEMPTS": "0"}


@pytest.fixture(scope="module")
def admin(broker):
    with broker.client() as client:
        yield client


def events(admin, **wanted) -> list[dict]:
    """Oldest first; ``wanted`` are fields."""
    found: list[dict] = []
    cursor = ""
    while cursor is not None:
        page = admin.get(f"/admin/audit?limit=1000{cursor and '&cursor='}{cursor}").json()
        found += page["events"]
        cursor = page["next_cursor"]
    return [e for e in reversed(found) if all(e[name] == value for name, value in wanted.items())]


def counted(admin, **wanted) -> int:
    return sum(event["detail"]["count"] for event in events(admin, **wanted))


def is_whole(broker) -> str:
    ended = broker.command("audit", "verify")
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stdout + ended.stderr
    return ended.stderr


def test_every_token_given_out_is_counted_by_key_tenant_and_action(broker, admin):
    broker.connect("counted")
    token_key = broker.make_key("counter", ["token"], ["counted"])
    proxy_key = broker.make_key("forwarder", ["proxy"], ["counted"])
    with broker.client(token_key) as service, broker.client(proxy_key) as proxy:
        for number in range(100):
            answer = service.get("/token/counted", headers={"X-Request-ID": f"issue-{number}"})
            assert answer.status_code == 200
        rejected = sha256(answer.json()["access_token"])
        body = {"rejected_token_sha256": rejected}
        assert service.post("/token/counted/refresh", json=body).status_code == 200
        for _ in range(3):
            assert proxy.get("/forward-auth/counted").status_code == 200
        for _ in range(4):
            assert proxy.get("/proxy/counted/v1/me").status_code == 200
    for key, action, number in (
        ("counter", "token_issue", 100),
        ("counter", "token_refresh", 1),
        ("forwarder", "token_forward", 3),
        ("forwarder", "proxy_call", 4),
    ):
        wanted = {"actor": key, "action": action, "tenant": "counted", "outcome": "done"}
        wait_until(lambda w=wanted, n=number: counted(admin, **w) == n, 4, f"{number} {action}s")
    issues = events(admin, actor="counter", action="token_issue")
    assert len(issues) <= 5, "a window makes one event, not one a call"
    assert issues[0]["request_id"] == "issue-0"
    assert issues[0]["detail"]["from"] <= issues[0]["detail"]["to"]
    (renewal,) = events(admin, action="refresh", tenant="counted")
    assert (renewal["actor"], renewal["outcome"]) == ("counter", "renewed")


def test_calls_that_got_no_token_are_not_counted_as_issues(broker, admin):
    key = broker.make_key("fruitless", ["token", "proxy"], ["*"])
    with broker.client(key) as service:
        assert service.get("/token/never-made").status_code == 404
        assert service.get("/proxy/never-made/v1/me").status_code == 404
        assert service.get("/token/counted").status_code == 200
    wait_until(lambda: events(admin, actor="fruitless"), 4)
    assert {event["tenant"] for event in events(admin, actor="fruitless")} == {"counted"}


def test_denied_calls_are_audited_and_no_stranger_can_fill_the_table(
    broker, admin, postgres, database_url
):
    before = int(sql(postgres, database_url, "SELECT count(*) FROM audit_events"))
    guesses = [f"ibk_{'x' * 30}{number:04d}" for number in range(300)]
    began = time.monotonic()
    with httpx.Client(base_url=broker.url) as stranger:
        for number, guess in enumerate(guesses):
            headers = {"Authorization": f"Bearer {guess}"}
            assert stranger.get(f"/token/t{number}", headers=headers).status_code == 401
        assert stranger.get("/forward-auth/acme").status_code == 401
        assert stranger.get("/proxy/acme/v1/me").status_code == 401
        assert stranger.get("/admin/tenants").status_code == 401
    passed = time.monotonic() - began
    wanted = {"action": "call_denied", "actor": "unknown", "outcome": "unauthenticated"}
    wait_until(lambda: counted(admin, **wanted) == 303, 4)
    after = int(sql(postgres, database_url, "SELECT count(*) FROM audit_events"))
    assert after - before <= 3 * (passed + 3), "by route and window, not by call"
    assert {event["detail"]["route"] for event in events(admin, **wanted)} == {
        "/token/{tenant}",
        "/forward-auth/{tenant}",
        "/proxy/{tenant}/{path}",
        "/admin/tenants",
    }
    trail = sql(
        postgres, database_url, "SELECT string_agg(audit_events::text, '') FROM audit_events"
    )
    assert not any(guess in trail for guess in guesses)


def test_a_key_that_goes_beyond_what_it_covers_is_named(broker, admin):
    key = broker.make_key("curious", ["token"], ["mine"])
    held = broker.make_key("held", ["proxy"], ["*"], paths=["GET /v1/me"])
    with broker.client(key) as service, broker.client(held) as proxy:
        for _ in range(3):
            assert service.get("/token/theirs").status_code == 403
        assert service.get("/proxy/mine/v1/me").status_code == 403
        assert service.post("/admin/tenants/x/connect-link").status_code == 403
        assert proxy.post("/proxy/mine/v1/me").status_code == 403
        assert proxy.get("/forward-auth/mine").status_code == 403
    wanted = {"action": "call_denied", "outcome": "forbidden"}
    wait_until(lambda: counted(admin, **wanted, actor="curious") == 5, 4)
    wait_until(lambda: counted(admin, **wanted, actor="held") == 2, 4)
    assert counted(admin, **wanted, actor="curious", tenant="theirs") == 3
    routes = {event["detail"]["route"] for event in events(admin, **wanted, actor="curious")}
    assert "/admin/tenants/{tenant}/connect-link" in routes


def test_sign_ins_sign_outs_and_failures_are_audited(broker, admin):
    def sign_in(browser: httpx.Client, key: str) -> httpx.Response:
        csrf = re.search(r'name="csrf" value="([^"]+)"', browser.get("/login").text)
        assert csrf is not None
        return browser.post("/login", data={"key": key, "csrf": csrf[1]})

    service_key = broker.make_key("no-admin", ["token"], ["*"])
    with httpx.Client(base_url=broker.url) as browser:
        assert sign_in(browser, "ibk_wrong").status_code == 401
        assert sign_in(browser, service_key).status_code == 401
        assert sign_in(browser, broker.admin_key).status_code == 303
        (signed_in,) = events(admin, action="sign_in", outcome="done")
        assert signed_in["actor"] == "bootstrap-admin"
        csrf = re.search(r'name="csrf" value="([^"]+)"', browser.get("/").text)
        assert browser.post("/logout", data={"csrf": csrf[1]}).status_code == 303
    assert events(admin, action="sign_out")[0]["actor"] == "bootstrap-admin"
    wait_until(lambda: counted(admin, action="sign_in", outcome="failed") == 2, 4)
    actors = {event["actor"] for event in events(admin, action="sign_in", outcome="failed")}
    assert actors == {"unknown", "no-admin"}


def test_forged_callbacks_and_links_are_audited(broker, admin):
    with httpx.Client(base_url=broker.url) as browser:
        assert browser.get("/callback?code=c&state=s").status_code == 400
        assert browser.post("/connect/forged").status_code == 404
    refused = {"action": "connect", "outcome": "refused", "actor": "unknown"}
    wait_until(lambda: counted(admin, **refused) == 2, 4)
    routes = {event["detail"]["route"] for event in events(admin, **refused)}
    assert routes == {"/callback", "/connect/{link}"}


def test_the_life_of_a_tenant_and_a_key_is_audited(broker, admin, fake):
    broker.make_key("lived", ["token"], ["lived"])
    broker.connect("lived")
    assert admin.post("/token/lived/refresh").status_code == 200
    fake.fail("token", 1, status=503)
    assert admin.post("/token/lived/refresh").status_code == 503
    assert admin.post("/admin/tenants/lived/disconnect").status_code == 200
    assert admin.delete("/admin/api-keys/lived").status_code == 204
    seen = [(e["action"], e["outcome"]) for e in events(admin, tenant="lived")]
    for step in (
        ("connect_link_create", "done"),
        ("connect", "begun"),
        ("connect", "done"),
        ("refresh", "renewed"),
        ("refresh", "throttled"),
        ("disconnect", "done"),
        ("revoke", "done"),
    ):
        assert step in seen
    keys = [e["action"] for e in events(admin) if e["detail"].get("key") == "lived"]
    assert keys == ["api_key_create", "api_key_revoke"]


def test_verify_says_that_all_is_well_or_names_what_is_not(broker, admin, postgres, database_url):
    assert "nothing amiss" in is_whole(broker)
    (signed_in,) = events(admin, action="sign_in", outcome="done")
    change = "UPDATE audit_events SET actor = '{}' WHERE id = {}"
    sql(postgres, database_url, change.format("nobody", signed_in["id"]))
    try:
        ended = broker.command("audit", "verify")
        assert ended.returncode == 1
        (line,) = ended.stdout.splitlines()
        assert line.startswith(f"event {signed_in['id']} (chain ")
        assert "was changed" in line
        as_json = broker.command("audit", "verify", "--json")
        assert as_json.returncode == 1
        assert json.loads(as_json.stdout)["findings"] == [line]
    finally:
        sql(postgres, database_url, change.format("bootstrap-admin", signed_in["id"]))
    is_whole(broker)


def test_kept_heads_are_compared(broker, tmp_path):
    kept = broker.command("audit", "heads").stdout
    assert json.loads(kept.splitlines()[0])["chain"] == 1
    file = tmp_path / "heads"
    file.write_text(kept)
    assert broker.command("audit", "verify", "--heads", str(file)).returncode == 0
    file.write_text(re.sub(r'"hash": "..', '"hash": "00', kept))
    assert "is not the event that the kept head names" in (
        broker.command("audit", "verify", "--heads", str(file)).stdout
    )
    file.write_text("{}")
    for path in (file, tmp_path / "missing"):
        ended = broker.command("audit", "verify", "--heads", str(path))
        assert (ended.returncode, ended.stdout) == (2, "")


def test_export_gives_json_lines_of_a_time(broker, admin):
    middle = datetime.now(UTC)
    admin.post("/admin/tenants/exported/connect-link")
    wait_until(lambda: events(admin, tenant="exported"), 2)
    hour = timedelta(hours=1)

    def exported(*arguments: str) -> list[dict]:
        ended = broker.command("audit", "export", *arguments)
        assert ended.returncode == 0, ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]

    everything = exported("--since", "2020-01-01")
    assert [e["id"] for e in events(admin)] == sorted(event["id"] for event in everything)
    assert set(everything[0]) == {
        "id", "at", "tenant", "actor", "action", "outcome", "request_id", "detail",
        "chain", "position", "hash",
    }  # fmt: skip
    late = exported("--since", middle.isoformat())
    assert "exported" in {event["tenant"] for event in late}
    early = exported("--since", "2020-01-01T00:00:00+01:00", "--until", middle.isoformat())
    assert {event["id"] for event in early}.isdisjoint(event["id"] for event in late)
    assert len(early) + len(late) >= len(everything)
    assert exported("--since", (datetime.now(UTC) + hour).isoformat()) == []


@pytest.mark.parametrize("arguments", [("--since", "yesterday"), ("--since", "2026-13-01"), ()])
def test_a_malformed_time_is_wrong_usage(broker, arguments):
    ended = broker.command("audit", "export", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")


def test_events_from_while_postgres_was_away_are_stored_when_it_is_back(broker, admin, postgres):
    key = broker.make_key("patient", ["token"], ["counted"])
    with broker.client(key) as service:
        assert service.get("/token/counted").status_code == 200
        wait_until(lambda: counted(admin, actor="patient") == 1, 4)
        postgres.stop("immediate")
        try:
            until = time.monotonic() + 2.5
            number = 0
            while time.monotonic() < until:
                assert service.get("/token/counted").status_code == 200
                number += 1
        finally:
            postgres.start()
        wait_until(lambda: counted(admin, actor="patient") == number + 1, 10)
        assert "broker_audit_events_lost_total 0.0" in service.get("/metrics").text
    is_whole(broker)


def test_a_graceful_stop_stores_the_last_audit_window(broker, admin):
    key = broker.make_key("last", ["token"], ["counted"])
    with broker.client(key) as service:
        for _ in range(7):
            assert service.get("/token/counted").status_code == 200
    assert broker.stop() == 0
    broker.start()
    assert counted(admin, actor="last") == 7


def test_a_kill_loses_a_window_at_most_and_leaves_whole_chains(broker, admin):
    key = broker.make_key("killed", ["token"], ["counted"])
    with broker.client(key) as service:
        began, answers = time.monotonic(), []
        while time.monotonic() < began + 3:
            assert service.get("/token/counted").status_code == 200
            answers.append(time.monotonic())
    broker.stop(signal.SIGKILL)
    killed_at = time.monotonic()
    broker.start()
    stored = counted(admin, actor="killed")
    assert sum(at < killed_at - 1.5 for at in answers) <= stored <= len(answers)
    is_whole(broker)


@pytest.fixture
def strict_broker(broker):
    broker.stop()
    broker.settings["BROKER_AUDIT_STRICT"] = "1"
    yield broker.start()
    broker.stop()
    del broker.settings["BROKER_AUDIT_STRICT"]
    broker.start()


def test_with_strict_auditing_a_kill_loses_no_answered_call(strict_broker, admin):
    key = strict_broker.make_key("strict", ["token", "proxy"], ["counted"])
    answered = 0

    def call() -> int:
        number = 0
        with strict_broker.client(key) as service:
            for path in ["/token/counted", "/forward-auth/counted", "/proxy/counted/v1/me"] * 1000:
                try:
                    if service.get(path).status_code == 200:
                        number += 1
                except httpx.TransportError:
                    break
        return number

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call) for _ in range(4)]
        time.sleep(1.5)
        strict_broker.stop(signal.SIGKILL)
        answered = sum(each.result() for each in calls)
    strict_broker.start()
    assert answered > 50
    # At most the calls that were under way are stored and not answered.
    assert answered <= counted(admin, actor="strict") <= answered + 4
    is_whole(strict_broker)


def test_with_strict_auditing_no_token_is_handed_out_while_postgres_is_away(
    strict_broker, admin, postgres
):
    key = strict_broker.make_key("refused", ["token", "proxy"], ["counted"])
    with strict_broker.client(key) as service:
        for path in ("/token/counted", "/forward-auth/counted", "/proxy/counted/v1/me"):
            assert service.get(path).status_code == 200
        postgres.stop("immediate")
        try:
            for path in ("/token/counted", "/forward-auth/counted", "/proxy/counted/v1/me"):
                answer = service.get(path)
                assert answer.status_code == 503, path
                assert answer.json()["type"] == "urn:ignition-broker:unavailable"
                assert answer.json()["detail"] == "The audit trail can't be written just now."
                assert int(answer.headers["retry-after"]) >= 1
                assert "authorization" not in answer.headers
        finally:
            postgres.start()
        wait_until(lambda: service.get("/token/counted").status_code == 200, 10)


@pytest.fixture
def forgetful_broker(broker):
    broker.stop()
    broker.settings["BROKER_AUDIT_RETENTION"] = str(2 / 86_400)
    yield broker.start()
    broker.stop()
    del broker.settings["BROKER_AUDIT_RETENTION"]
    broker.start()


def test_events_are_kept_for_as_long_as_the_setting_says(forgetful_broker, admin):
    admin.post("/admin/tenants/forgotten/connect-link")
    assert events(admin, tenant="forgotten")
    wait_until(lambda: not events(admin, tenant="forgotten"), 20)
    is_whole(forgetful_broker)
