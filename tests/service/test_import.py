"""`tenants import` against a real Postgres and the fake Ignition."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.conftest import sql, wait_until

ROWS = 10_000


@pytest.fixture
def ask(idle_broker, postgres):
    return lambda statement: sql(postgres, idle_broker.settings["DATABASE_URL"], statement)


def imported(broker, tmp_path, content: str, *options: str):
    file = tmp_path / "tokens.csv"
    file.write_text(content)
    file.chmod(0o600)
    return broker.command("tenants", "import", str(file), *options)


def seeded(fake, count: int) -> list[str]:
    return [grant["refresh_token"] for grant in fake.control("grants", count=count)["grants"]]


def test_an_imported_refresh_token_brings_a_token_that_works(broker, fake, tmp_path, ask):
    (token,) = seeded(fake, 1)
    content = f"tenant,refresh_token,labels,name\nmoved,{token},tier=gold,Moved In\n"
    trial = imported(broker, tmp_path, content, "--dry-run")
    assert (trial.returncode, trial.stdout) == (0, "2: moved: imported\n"), trial.stderr
    assert ask("SELECT count(*) FROM tenants WHERE id = 'moved'") == "0"
    first = imported(broker, tmp_path, content)
    assert (first.returncode, first.stdout) == (0, "2: moved: imported\n"), first.stderr
    assert token not in first.stdout + first.stderr
    with broker.client(broker.make_key("mover", ["token"], ["moved"])) as caller:
        issued = caller.get("/token/moved").json()
    assert issued["expires_in"] > 0, issued
    with broker.client() as admin:
        shown = admin.get("/admin/tenants/moved").json()
    assert (shown["name"], shown["labels"]) == ("Moved In", {"tier": "gold"})
    event = "SELECT actor FROM audit_events WHERE action = 'tenant_import' AND tenant_id = 'moved'"
    assert ask(event) == "cli"


def test_each_imported_grant_is_verified_once(broker, fake, tmp_path):
    first, second = seeded(fake, 2)
    content = f"tenant,refresh_token\ngood-1,{first}\nbad,no-such-token\ngood-2,{second}\n"
    options = ("--skip-connected", "--verify", "--pause", "0")
    ended = imported(broker, tmp_path, content, *options)
    assert ended.returncode == 1
    lines = ended.stdout.splitlines()[3:]
    assert [line.split(":")[1].strip() for line in lines] == ["good-1", "bad", "good-2"]
    assert "refreshed, expires" in lines[0]
    assert "refreshed, expires" in lines[2]
    assert "2 verified, 1 not" in ended.stderr
    requests = fake.counters()["token_requests"]
    with broker.client() as admin:
        assert admin.get("/admin/tenants/bad").json()["status"] == "reauthorization_required"
    # Their refresh tokens have been rotated since, and are not sent again.
    again = imported(broker, tmp_path, f"tenant,refresh_token\ngood-1,{first}\n", *options)
    assert again.returncode == 0, again.stderr
    assert fake.counters()["token_requests"] == requests


def test_a_connected_tenant_is_never_overwritten(broker, tmp_path, ask):
    broker.connect("taken")
    row = "SELECT encode(refresh_token, 'hex') FROM grants WHERE tenant_id = 'taken'"
    before = ask(row)
    content = "tenant,refresh_token\nfresh,first-token\ntaken,other-token\n"
    refused = imported(broker, tmp_path, content)
    assert refused.returncode == 1
    assert ":3: the tenant is connected" in refused.stderr
    assert ask("SELECT count(*) FROM tenants WHERE id = 'fresh'") == "0"
    skipped = imported(broker, tmp_path, content, "--skip-connected")
    assert skipped.returncode == 0, skipped.stderr
    assert "3: taken: skipped" in skipped.stdout
    assert ask(row) == before


def filled(broken: int | None = None) -> str:
    lines = [f"bulk-{number},refresh-{number:040d}" for number in range(ROWS)]
    if broken is not None:
        lines[broken] = "bulk-x,"
    return "\n".join(["tenant,refresh_token", *lines])


STORED = "SELECT count(*) FROM grants WHERE tenant_id LIKE 'bulk-%'"


def test_a_broken_row_in_the_middle_stores_nothing(idle_broker, tmp_path, ask):
    refused = imported(idle_broker, tmp_path, filled(broken=5000))
    assert refused.returncode == 1
    assert ":5002: refresh_token: is missing" in refused.stderr
    assert ask(STORED) == "0"


def test_a_killed_import_stores_nothing_and_runs_again(idle_broker, tmp_path, ask):
    if idle_broker.process is not None:
        # It would ask the fake for tokens that this test has made up.
        idle_broker.stop()
    file = tmp_path / "tokens.csv"
    file.write_text(filled())
    command = [sys.executable, "-m", "ignition_broker", "tenants", "import", str(file)]
    going = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ignition-broker' "
        "AND state LIKE '%transaction%' AND query LIKE '%INSERT INTO grants%'"
    )
    with subprocess.Popen(
        command,
        env=idle_broker.environment,
        cwd=idle_broker.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as importing:
        wait_until(lambda: ask(going) != "0", 200, "the first row")
        assert importing.poll() is None, "it ended too early for this test"
        importing.kill()
    assert ask(STORED) == "0"
    ended = imported(idle_broker, tmp_path, filled())
    assert ended.returncode == 0, ended.stderr
    assert ask(STORED) == str(ROWS)
    again = imported(idle_broker, tmp_path, filled())
    assert again.returncode == 0, again.stderr
    assert f"{ROWS} unchanged" in again.stderr
    spread = "SELECT extract(epoch FROM max(next_refresh_at) - min(next_refresh_at)) > 1500 FROM "
    assert ask(f"{spread} grants WHERE tenant_id LIKE 'bulk-%'") == "t"
