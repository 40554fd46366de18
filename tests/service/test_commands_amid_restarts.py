"""Long commands during which Postgres restarts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.fernet import Fernet
from tests.conftest import sql, wait_until
from tests.service.test_rotation_while_serving import IDLE, fill
from typer.testing import CliRunner

from ignition_broker.cipher import fingerprint_of
from ignition_broker.cli import app
from ignition_broker.cli import database as cli_database
from ignition_broker.embedded import EmbeddedPostgres
from ignition_broker.storage import schema

EVENTS = 30_000
FILL_EVENTS = f"""
    INSERT INTO audit_events (tenant_id, actor, action, outcome)
    SELECT 'a1', 'test', 'token_issue', 'done' FROM generate_series(1, {EVENTS})
"""


@pytest.fixture(scope="module")
def server():
    """Of this module alone, since it is restarted."""
    with tempfile.TemporaryDirectory(prefix="ib-restarts-") as folder:
        os.chmod(folder, 0o755)
        with EmbeddedPostgres(Path(folder) / "postgres", fsync=False) as started:
            yield started


@pytest.fixture(scope="module")
def key():
    return Fernet.generate_key().decode()


@pytest.fixture(scope="module")
def url(server, key):
    server.create_database("broker")
    made = server.url("broker")
    schema.migrate(made)
    fill(SimpleNamespace(postgres=server, database_url=made), key)
    sql(server, made, FILL_EVENTS)
    return made


def environment(url: str, keys: str) -> dict[str, str]:
    return {**os.environ, "DATABASE_URL": url, "BROKER_ENCRYPTION_KEYS": keys}


def begin(url: str, keys: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ignition_broker", *arguments],
        env=environment(url, keys),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def count(server, url: str, statement: str) -> int:
    return int(sql(server, url, f"SELECT count(*) FROM {statement}"))


def test_a_rotation_of_keys_goes_on_after_a_restart(server, url, key):
    new = Fernet.generate_key().decode()
    done = f"grants WHERE key_fingerprint = '{fingerprint_of(new)}'"
    with begin(url, f"{new},{key}", "keys", "rotate") as rotating:
        wait_until(lambda: count(server, url, done), 30, "the first batch")
        # Away for longer than a batch is encrypted without the database.
        server.stop("immediate")
        time.sleep(3)
        server.start()
        assert count(server, url, done) < IDLE, "it ended too early for this test"
        _printed, said = rotating.communicate(timeout=90)
    assert rotating.returncode == 0, said
    assert "the database is away" in said
    assert "Traceback" not in said
    assert count(server, url, done) == IDLE
    assert count(server, url, "audit_events WHERE action = 'keys_rotate'") == 1


def test_an_export_of_the_audit_trail_goes_on_after_a_restart_where_it_was(server, url, key):
    total = count(server, url, "audit_events")
    with begin(url, key, "audit", "export", "--since", "2020-01-01") as exporting:
        assert exporting.stdout is not None
        # Its output is not read, so it blocks within its first page.
        first = exporting.stdout.readline()
        server.restart("immediate")
        # communicate() alone would skip the lines that readline() has buffered.
        printed = exporting.stdout.readlines()
        _nothing, said = exporting.communicate(timeout=90)
    assert exporting.returncode == 0, said
    events = [json.loads(line)["id"] for line in [first, *printed]]
    assert len(events) == len(set(events)) == total
    assert "Traceback" not in said


def test_a_verification_of_the_audit_trail_begins_anew_after_a_restart(server, url, key):
    reading = (
        "pg_stat_activity WHERE application_name = 'ignition-broker' "
        "AND query LIKE '%FROM audit_events%'"
    )
    with begin(url, key, "audit", "verify") as verifying:
        wait_until(lambda: count(server, url, reading), 30, "its first page")
        server.restart("immediate")
        _printed, said = verifying.communicate(timeout=90)
    assert verifying.returncode == 0, said
    assert "the database is away" in said
    assert said.splitlines()[-1].endswith("chained events: nothing amiss")
    assert "Traceback" not in said


def test_an_import_that_loses_the_database_says_so_and_stores_nothing(server, url, key, tmp_path):
    file = tmp_path / "grants.csv"
    file.write_text(
        "tenant,refresh_token\n" + "".join(f"moved-{n},token-{n}\n" for n in range(IDLE))
    )
    file.chmod(0o600)
    storing = (
        "pg_stat_activity WHERE application_name = 'ignition-broker' "
        "AND (query LIKE '%INSERT%' OR query LIKE '%UPDATE%')"
    )
    with begin(url, key, "tenants", "import", str(file)) as importing:
        wait_until(lambda: count(server, url, storing), 60, "its first row")
        server.restart("immediate")
        printed, said = importing.communicate(timeout=90)
    assert (importing.returncode, printed) == (1, ""), said
    assert said.splitlines()[-1].endswith(
        "run the same command again, which stores all rows or none"
    )
    assert "Traceback" not in said
    assert count(server, url, "tenants WHERE id LIKE 'moved-%'") == 0


COMMANDS = {
    ("keys", "rotate"): "run `keys rotate` again, which goes on where this ended",
    ("audit", "verify"): "run `audit verify` again",
    ("audit", "export", "--since", "2020-01-01"): "run it again",
    ("migrate",): "run `migrate` again",
}


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_database_that_is_away_from_the_beginning_is_told_at_once(server, url, key, arguments):
    away = url.replace(f":{server.port}/", ":1/")
    began = time.monotonic()
    with begin(away, key, *arguments) as ended:
        printed, said = ended.communicate(timeout=60)
    assert (ended.returncode, printed) == (1, "")
    # A rotation prints its progress bar before it.
    *bar, line = said.strip().splitlines()
    assert len(bar) == (1 if arguments[0] == "keys" else 0), said
    assert "connection refused (ECONNREFUSED)" in line
    assert COMMANDS[arguments] in line
    assert time.monotonic() - began < cli_database.PATIENCE_SECONDS / 2


@pytest.mark.parametrize(
    ("arguments", "how"),
    [
        (["keys", "rotate"], "grants were re-encrypted; run `keys rotate` again"),
        (["audit", "export", "--since", "2020-01-01"], "go on with --since "),
    ],
)
def test_a_database_that_stays_away_ends_a_command_with_how_to_go_on(
    server, url, key, monkeypatch, arguments, how
):
    monkeypatch.setattr(cli_database, "PATIENCE_SECONDS", 1.0)
    keys = f"{Fernet.generate_key().decode()},{key}"
    original = cli_database.PatientDatabase.once
    calls = 0

    async def once(database, work):
        nonlocal calls
        calls += 1
        if calls == 4:
            server._halt("immediate")
        return await original(database, work)

    monkeypatch.setattr(cli_database.PatientDatabase, "once", once)
    port = server.port
    try:
        ended = CliRunner().invoke(app, arguments, env=environment(url, keys))
    finally:
        server._launch(port)
    assert ended.exit_code == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("the database can't be used: ")
    assert how in last
    if arguments[0] == "audit":
        again = [
            sys.executable,
            "-m",
            "ignition_broker",
            *arguments[:3],
            last.split("--since ")[1].split(",")[0],
        ]
        rest = subprocess.run(again, env=environment(url, key), capture_output=True, text=True)
        before = {json.loads(line)["id"] for line in ended.stdout.splitlines()}
        after = {json.loads(line)["id"] for line in rest.stdout.splitlines()}
        assert len(before | after) == count(server, url, "audit_events")
