"""One deployment with two OAuth clients, each at an Ignition of its own."""

from __future__ import annotations

import json
import secrets

import httpx
import pytest
from tests.conftest import Fake, consent, sha256, sql, wait_until
from tests.service.test_pages_and_callback import hidden, sign_in


@pytest.fixture(scope="module")
def sandbox(callback_port):
    server = Fake(
        client_id="sandbox-client",
        client_secret=secrets.token_urlsafe(24),
        redirect_uris=(f"http://localhost:{callback_port}/callback",),
    )
    yield server
    server.stop()


@pytest.fixture(scope="module")
def secret_file(sandbox, tmp_path_factory):
    file = tmp_path_factory.mktemp("secrets") / "sandbox"
    file.write_text(f"{sandbox.options.client_secret}\n")
    return file


@pytest.fixture(scope="module")
def more_settings(sandbox, secret_file):
    client = {
        "id": sandbox.options.client_id,
        "secret_file": str(secret_file),
        "authorize_url": f"{sandbox.url}/oauth/authorize",
        "token_url": f"{sandbox.url}/oauth/token",
        "revoke_url": f"{sandbox.url}/oauth/revoke",
        "api_url": sandbox.url,
        "scopes": "read sandbox",
    }
    return {"IGNITION_CLIENTS": json.dumps({"sandbox": client})}


@pytest.fixture(autouse=True)
def _the_sandbox_is_well(sandbox, broker):
    sandbox.control("reset")
    yield
    sandbox.control("client", client_secrets=[sandbox.options.client_secret])
    assert not broker.tracebacks()


@pytest.fixture
def admin(broker):
    with broker.client() as client:
        yield client


def connect(broker, tenant: str, client: str = "default") -> None:
    with broker.client() as admin, httpx.Client(timeout=30) as browser:
        link = admin.post(f"/c/{client}/admin/tenants/{tenant}/connect-link").json()["url"]
        page = browser.get(link).text
        assert (client == "default") or f"{tenant} ({client})" in page
        done = consent(browser, browser.post(link))
        assert done.status_code == 200, done.text
        assert "@" not in done.text


def token(client: httpx.Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.json()["tenant"] == path.partition("?")[0].rpartition("/")[2]
    return answer.json()["access_token"]


def refresh(client: httpx.Client, path: str) -> str:
    answer = client.post(path)
    assert answer.status_code == 200, answer.text
    return answer.json()["access_token"]


def test_one_tenant_has_a_grant_at_each_client_and_nothing_crosses(
    broker, fake, sandbox, admin, postgres
):
    connect(broker, "acme")
    connect(broker, "acme", "sandbox")
    ours, theirs = token(admin, "/token/acme"), token(admin, "/token/acme?client=sandbox")
    assert ours != theirs
    assert token(admin, "/c/sandbox/token/acme") == theirs
    assert token(admin, "/c/default/token/acme") == ours
    for name, query, expected in (("default", "", ours), ("sandbox", "?client=sandbox", theirs)):
        for path in (f"/forward-auth/acme{query}", f"/c/{name}/forward-auth/acme"):
            assert admin.get(path).headers["Authorization"] == f"Bearer {expected}"
    # The client in a proxied query is the API's.
    for path, server, bearer in (
        ("/proxy/acme/echo?client=sandbox", fake, ours),
        ("/c/sandbox/proxy/acme/echo?client=default", sandbox, theirs),
    ):
        called = server.counters()["api_requests"]
        seen = admin.get(path)
        assert seen.status_code == 200, seen.text
        assert seen.json()["query"] == path.partition("?")[2]
        assert dict(seen.json()["headers"])["authorization"] == f"Bearer {bearer}"
        assert server.counters()["api_requests"] == called + 1
    # Each is renewed at its own Ignition, and the other stays as it is.
    before = fake.counters()["refreshes"], sandbox.counters()["refreshes"]
    assert refresh(admin, "/c/sandbox/token/acme/refresh") != theirs
    assert token(admin, "/token/acme") == ours
    assert (fake.counters()["refreshes"], sandbox.counters()["refreshes"]) == (
        before[0],
        before[1] + 1,
    )
    ids = sql(postgres, broker.settings["DATABASE_URL"], "SELECT tenant_id FROM grants ORDER BY 1")
    assert ids.split() == ["acme", "acme@sandbox"]


def test_what_admins_see_has_tenant_and_client_apart(broker, admin):
    connect(broker, "apart", "sandbox")
    connect(broker, "apart")
    rows = admin.get("/admin/tenants?limit=1000").json()["tenants"]
    mine = [(row["client"], row["scope"]) for row in rows if row["tenant"] == "apart"]
    assert [client for client, _ in mine] == ["default", "sandbox"]
    listed = admin.get("/c/sandbox/admin/tenants").json()["tenants"]
    assert {row["client"] for row in listed} == {"sandbox"}
    # Page by page, each once.
    seen, cursor = [], ""
    while cursor is not None:
        page = admin.get("/admin/tenants", params={"limit": 1, "cursor": cursor}).json()
        seen += page["tenants"]
        cursor = page["next_cursor"]
        assert cursor is None or "@" not in cursor
    assert [(row["tenant"], row["client"]) for row in seen] == [
        (row["tenant"], row["client"]) for row in rows
    ]
    events = admin.get("/admin/audit?tenant=apart").json()["events"]
    assert {event["tenant"] for event in events} == {"apart"}
    assert {event["client"] for event in events} == {"default", "sandbox"}
    theirs = admin.get("/admin/audit?tenant=apart&client=sandbox").json()["events"]
    assert {event["client"] for event in theirs} == {"sandbox"}
    assert {event["action"] for event in theirs} >= {"connect", "connect_link_create"}
    wait_until(
        lambda: (
            admin.get("/token/apart?client=sandbox").status_code == 200
            and any(
                event["action"] == "token_issue" and event["client"] == "sandbox"
                for event in admin.get("/admin/audit?tenant=apart").json()["events"]
            )
        )
    )
    unknown = admin.get("/token/nobody?client=sandbox").json()
    assert (unknown["tenant"], unknown["client"]) == ("nobody", "sandbox")
    assert "'nobody' at the client 'sandbox'" in unknown["detail"]
    everything = json.dumps(rows) + json.dumps(events) + json.dumps(unknown)
    assert "@sandbox" not in everything
    assert broker.command("audit", "verify").returncode == 0
    wait_until(lambda: '"client": "sandbox"' in broker.log_text())
    assert "@sandbox" not in broker.log_text()


def test_a_grants_id_can_not_be_smuggled_in_as_a_tenants(broker, admin):
    connect(broker, "smuggled", "sandbox")
    assert admin.get("/c/sandbox/token/smuggled").status_code == 200, "it is in memory now"
    key = broker.make_key("wide", ["token", "proxy"], ["*", "smuggled*", "smuggled?sandbox"])
    with broker.client(key) as wide:
        for tenant in ("smuggled@sandbox", "smuggled%40sandbox"):
            for method, path in (
                ("GET", f"/token/{tenant}"),
                ("POST", f"/token/{tenant}/refresh"),
                ("GET", f"/forward-auth/{tenant}"),
                ("GET", f"/proxy/{tenant}/echo"),
                ("GET", f"/c/sandbox/token/{tenant}"),
                ("GET", f"/c/default/proxy/{tenant}/echo"),
                ("GET", f"/token/smuggled?client={tenant.removeprefix('smuggled')}"),
            ):
                answer = wide.request(method, path)
                assert answer.status_code in (400, 404, 422), (path, answer.text)
                assert "access_token" not in answer.text
                assert "Authorization" not in answer.headers
    for path in (
        "/admin/tenants/smuggled@sandbox",
        "/admin/tenants?cursor=smuggled@sandbox",
        "/admin/audit?tenant=smuggled@sandbox",
        "/auth?tenant=smuggled@sandbox",
    ):
        assert admin.get(path).status_code in (303, 422), path
    made = admin.post(
        "/admin/api-keys",
        json={"name": "pattern", "scopes": ["token"], "tenants": ["smuggled@sandbox"]},
    )
    assert made.status_code == 422


def test_a_key_covers_a_tenant_at_every_client_and_no_other_tenant(broker):
    connect(broker, "covered", "sandbox")
    with broker.client(broker.make_key("covers", ["token"], ["cov*"])) as service:
        assert service.get("/c/sandbox/token/covered").status_code == 200
        for path in ("/c/sandbox/token/acme", "/token/acme?client=sandbox"):
            assert service.get(path).status_code == 403
        assert service.get("/c/nowhere/token/covered").json()["type"].endswith("unknown-client")


def test_a_client_that_its_ignition_refuses_leaves_the_other_and_its_breaker_alone(
    broker, fake, sandbox, admin
):
    tenants = [f"t{number}" for number in range(4)]
    for tenant in tenants:
        connect(broker, tenant, "sandbox")
    connect(broker, "steady")
    sandbox.fail("token", count=1000, status=503)
    for _ in range(3):
        for tenant in tenants:
            admin.post(f"/c/sandbox/token/{tenant}/refresh")
    held = admin.get("/c/sandbox/token/t0?min_ttl=3599")
    assert held.status_code in (200, 503)
    body = {"rejected_token_sha256": sha256(token(admin, "/token/steady"))}
    renewed = admin.post("/token/steady/refresh", json=body)
    assert renewed.status_code == 200, renewed.text
    sandbox.control("reset")
    sandbox.control("client", client_secrets=["another"])
    for tenant in tenants:
        refused = admin.post(f"/c/sandbox/token/{tenant}/refresh")
        assert refused.status_code == 502, refused.text
        assert refused.json()["client"] == "sandbox"
    assert admin.post("/token/steady/refresh").status_code == 200
    sandbox.control("client", client_secrets=[sandbox.options.client_secret])
    for tenant in tenants:
        assert admin.get(f"/c/sandbox/admin/tenants/{tenant}").json()["status"] == "connected"
        assert admin.post(f"/c/sandbox/token/{tenant}/refresh").status_code == 200


def test_a_disconnect_of_one_leaves_the_other(broker, fake, sandbox, admin):
    connect(broker, "half")
    connect(broker, "half", "sandbox")
    ours, theirs = token(admin, "/token/half"), token(admin, "/token/half?client=sandbox")
    gone = admin.post("/admin/tenants/half/disconnect?client=sandbox").json()
    assert (gone["tenant"], gone["client"], gone["status"]) == ("half", "sandbox", "disconnected")
    assert admin.get("/c/sandbox/token/half").json()["type"].endswith("not-connected")
    assert token(admin, "/token/half") == ours

    def alive(server: Fake, access_token: str) -> bool:
        query = {"access_token_sha256": sha256(access_token)}
        (grant,) = server.http.get("/control/ledger", params=query).json()["grants"]
        return grant["alive"]

    wait_until(lambda: not alive(sandbox, theirs), what="revoked at its own Ignition")
    assert alive(fake, ours)


def test_the_command_line_acts_on_the_client_that_is_named(broker, admin):
    for name, code in (("sandbox", 0), ("nowhere", 2), ("a@b", 2)):
        ended = broker.command("tenants", "connect-link", "lined", "--client", name)
        assert ended.returncode == code, ended.stderr
    with httpx.Client(timeout=30) as browser:
        link = broker.command("tenants", "connect-link", "lined", "--client", "sandbox").stdout
        assert consent(browser, browser.post(link.strip())).status_code == 200
    shown = broker.command("tenants", "show", "lined", "--client", "sandbox", "--json")
    assert json.loads(shown.stdout)["status"] == "connected"
    assert broker.command("tenants", "show", "lined").returncode == 1
    rows = json.loads(broker.command("tenants", "list", "--client", "sandbox", "--json").stdout)
    assert {row["client"] for row in rows} == {"sandbox"}
    assert broker.command("tenants", "refresh", "lined", "--client", "sandbox").returncode == 0
    assert broker.command("tenants", "links", "lined", "--client", "sandbox").returncode == 0
    assert broker.command("tenants", "show", "lined@sandbox").returncode == 2
    ended = broker.command("tenants", "disconnect", "lined", "--client", "sandbox")
    assert (ended.returncode, ended.stdout) == (0, "lined: disconnected, revoked at Ignition\n")


def test_admins_connect_and_disconnect_in_the_console(broker, admin):
    with httpx.Client(base_url=broker.url, timeout=30) as browser:
        sign_in(browser, broker.admin_key)
        page = browser.get("/").text
        assert "<option>sandbox</option>" in page
        form = {"csrf": hidden(page, "csrf"), "tenant": "clicked", "client": "sandbox"}
        done = consent(browser, browser.post("/connect", data=form))
        assert "clicked (sandbox) is connected" in done.text
        begun = browser.get("/c/sandbox/auth?tenant=clicked", headers={"Sec-Fetch-Site": "none"})
        assert begun.status_code in (200, 303), begun.text
        assert "OAuth client sandbox" in browser.get("/").text
        assert browser.post("/connect", data={**form, "client": "no"}).status_code == 404
        ended = browser.post("/disconnect", data=form)
        assert ended.status_code == 303, ended.text
    assert admin.get("/c/sandbox/token/clicked").status_code == 409


def test_due_grants_are_renewed_at_their_own_ignition(broker, sandbox, admin, postgres):
    connect(broker, "due", "sandbox")
    before = token(admin, "/c/sandbox/token/due")
    sql(
        postgres,
        broker.settings["DATABASE_URL"],
        "UPDATE grants SET next_refresh_at = now() - interval '1 s' "
        "WHERE tenant_id IN ('due@sandbox')",
    )
    wait_until(lambda: token(admin, "/c/sandbox/token/due") != before, what="renewed")


def test_grants_of_a_client_that_the_settings_no_longer_name_are_left_alone(
    broker, admin, sandbox, postgres
):
    connect(broker, "orphan", "sandbox")
    connect(broker, "orphan")
    url = broker.settings["DATABASE_URL"]
    kept = broker.settings.pop("IGNITION_CLIENTS")
    try:
        broker.stop()
        broker.start()
        sandbox.control("reset")
        due = "UPDATE grants SET next_refresh_at = now() - interval '1 s'"
        sql(postgres, url, f"{due} WHERE tenant_id LIKE 'orphan%'")
        version = "SELECT version FROM grants WHERE tenant_id = '%s'"
        wait_until(lambda: sql(postgres, url, version % "orphan") == "2", what="its neighbour")
        assert sql(postgres, url, version % "orphan@sandbox") == "1"
        lease = "SELECT lease_owner IS NULL FROM grants WHERE tenant_id = 'orphan@sandbox'"
        assert sql(postgres, url, lease) == "t"
        for path in ("/c/sandbox/token/orphan", "/token/orphan?client=sandbox"):
            assert admin.get(path).json()["type"].endswith("unknown-client")
        listed = admin.get("/admin/tenants?limit=1000").json()["tenants"]
        assert ("orphan", "sandbox") in [(row["tenant"], row["client"]) for row in listed]
        ended = broker.command("tenants", "disconnect", "orphan", "--client", "sandbox")
        assert (ended.returncode, ended.stdout) == (0, "orphan: disconnected\n"), ended.stderr
        assert sandbox.counters()["token_requests"] == sandbox.counters()["revocations"] == 0
    finally:
        broker.settings["IGNITION_CLIENTS"] = kept
        broker.stop()
        broker.start()


def test_a_secret_is_rotated_with_overlap(broker, sandbox, secret_file, admin, tmp_path):
    """The newer one is not known yet, then both are, then the older is known no longer."""
    connect(broker, "rotated", "sandbox")
    older, newer = sandbox.options.client_secret, "the-newer-secret-of-the-sandbox"
    previous = tmp_path / "previous"
    previous.write_text(older)
    secret_file.write_text(newer)
    kept = broker.settings["IGNITION_CLIENTS"]
    clients = json.loads(kept)
    clients["sandbox"]["previous_secret_file"] = str(previous)
    broker.settings["IGNITION_CLIENTS"] = json.dumps(clients)
    name = 'broker_client_secrets_refused_total{client="sandbox"} '

    def fallen_back() -> float:
        lines = admin.get("/metrics").text.splitlines()
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    try:
        broker.stop()
        broker.start()
        refresh(admin, "/c/sandbox/token/rotated/refresh")
        assert fallen_back() == 1
        assert '"client_secret_refused"' in broker.log_text()
        connect(broker, "rotated", "sandbox")
        assert fallen_back() == 2
        for accepted in ([older, newer], [newer]):
            sandbox.control("client", client_secrets=accepted)
            refresh(admin, "/c/sandbox/token/rotated/refresh")
            assert fallen_back() == 2, "the newer is tried first"
        sandbox.control("client", client_secrets=["neither"])
        refused = admin.post("/c/sandbox/token/rotated/refresh")
        assert refused.json()["type"].endswith("provider-error")
        sandbox.control("client", client_secrets=[older])
        assert admin.post("/admin/tenants/rotated/disconnect?client=sandbox").status_code == 200
        assert fallen_back() == 4
        assert newer not in broker.log_text()
        assert older not in broker.log_text()
        gone = admin.get("/c/sandbox/admin/tenants/rotated").json()
        assert gone["status"] == "disconnected"
    finally:
        secret_file.write_text(older)
        broker.settings["IGNITION_CLIENTS"] = kept
        broker.stop()
        broker.start()


def test_the_plain_settings_secret_is_rotated_in_the_same_way(broker, fake, admin):
    connect(broker, "plain")
    settings = broker.settings
    older = settings["IGNITION_CLIENT_SECRET"]
    settings |= {
        "IGNITION_CLIENT_SECRET": "the-newer-secret",
        "IGNITION_CLIENT_SECRET_PREVIOUS": older,
    }
    try:
        broker.stop()
        broker.start()
        refresh(admin, "/token/plain/refresh")
        fake.control("client", client_secrets=["the-newer-secret"])
        refresh(admin, "/token/plain/refresh")
        assert broker.log_text().count('"remedy": "Ignition does not know') >= 1
    finally:
        fake.control("client", client_secrets=[older])
        settings["IGNITION_CLIENT_SECRET"] = older
        del settings["IGNITION_CLIENT_SECRET_PREVIOUS"]
        broker.stop()
        broker.start()


def test_a_fault_in_the_setting_stops_the_start_with_a_line_each(broker):
    kept = broker.settings["IGNITION_CLIENTS"]
    broker.settings["IGNITION_CLIENTS"] = '{"box": {"id": "x", "token_url": "ftp://hunter2"}}'
    try:
        ended = broker.command("serve")
        link = broker.command("tenants", "connect-link", "acme")
    finally:
        broker.settings["IGNITION_CLIENTS"] = kept
    for each in (ended, link):
        assert each.returncode == 2
        lines = [line for line in each.stderr.splitlines() if "IGNITION_CLIENTS: box." in line]
        assert len(lines) == 2, each.stderr
        assert "hunter2" not in each.stderr
