"""`api-keys`: what is asked of the broker, and what is printed where."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from tests.unit.scripted_database import ScriptedDatabase
from typer.testing import CliRunner

from ignition_broker.broker.errors import InvalidRequest
from ignition_broker.cli import api_keys as command
from ignition_broker.storage import api_keys

MADE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROW = {
    "name": "ops",
    "scopes": ["proxy"],
    "tenants": ["acme", "beta-*"],
    "created_at": MADE,
    "expires_at": None,
    "revoked_at": None,
    "last_used_at": None,
    "paths": ["GET /v1/*"],
    "allowance_weight": 1,
    "allowance_reserve": 0,
    "created_by": "ops",
    "previous_works_until": None,
}


@pytest.fixture
def database(monkeypatch):
    scripted = ScriptedDatabase(
        {
            api_keys.CREATE: [ROW],
            api_keys.LOCK: [{"key_hash": b"old", "is_expired": False}],
            api_keys.REPLACE: [ROW],
            api_keys.REVOKE: [{"name": "ops"}],
            api_keys.LIST: [ROW],
        }
    )
    monkeypatch.setattr(command, "with_database", lambda work: asyncio.run(work(scripted)))
    monkeypatch.setenv("COLUMNS", "200")
    return scripted


def run(*arguments: str):
    return CliRunner().invoke(command.app, arguments)


def test_a_created_key_is_alone_on_stdout(database):
    ended = run("create", "ops", "--tenants", "acme, beta-*", "--scopes", "proxy", "--paths=GET /a")
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert ended.stdout.startswith("ibk_")
    assert len(ended.stdout.splitlines()) == 1
    (stored,) = database.parameters_of(api_keys.CREATE)
    assert (stored["tenants"], stored["scopes"]) == (["acme", "beta-*"], ["proxy"])
    assert (stored["paths"], stored["expires_at"]) == (["GET /a"], None)


@pytest.mark.parametrize(
    ("text", "lifetime"),
    [
        ("30m", timedelta(minutes=30)),
        ("12h", timedelta(hours=12)),
        ("90d", timedelta(days=90)),
        ("2w", timedelta(weeks=2)),
    ],
)
def test_an_expiry_counts_from_now(database, text, lifetime):
    before = datetime.now(UTC)
    assert run("create", "ops", "--tenants=*", f"--expires={text}").exit_code == 0
    (stored,) = database.parameters_of(api_keys.CREATE)
    assert before + lifetime <= stored["expires_at"] <= datetime.now(UTC) + lifetime


@pytest.mark.parametrize("text", ["", "90", "d", "-1d", "1.5d", "1y", "999999d"])
def test_a_malformed_duration_is_wrong_usage(database, text):
    assert run("create", "ops", "--tenants=*", f"--expires={text}").exit_code == 2
    assert run("rotate", "ops", f"--grace={text}").exit_code == 2
    assert database.asked == []


@pytest.mark.usefixtures("database")
def test_what_the_broker_refuses_is_left_to_the_one_who_ends_the_process():
    assert isinstance(run("create", "o p s", "--tenants=*").exception, InvalidRequest)


@pytest.mark.parametrize(("grace", "seconds"), [("24h", 86_400), ("0", 0), ("7d", 604_800)])
def test_a_rotation_prints_the_new_key_alone(database, grace, seconds):
    ended = run("rotate", "ops", f"--grace={grace}")
    assert ended.stdout.startswith("ibk_")
    assert {given["grace"] for _asked, given in database.committed if "grace" in given} == {seconds}


@pytest.mark.usefixtures("database")
def test_a_revocation_says_whose():
    assert run("revoke", "ops").stdout == "ops: revoked\n"


@pytest.mark.usefixtures("database")
def test_the_list_is_a_table_or_json():
    table = run("list").stdout
    for text in ("ops", "acme,beta-*", "GET /v1/*", "never", "live"):
        assert text in table
    (row,) = json.loads(run("list", "--json").stdout)
    assert row["created_at"] == MADE.isoformat()
    assert (row["name"], row["paths"], row["expires_at"]) == ("ops", ["GET /v1/*"], None)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"revoked_at": MADE, "previous_works_until": MADE}, "revoked"),
        ({"previous_works_until": MADE}, "live, the old one until 2026-01-02 03:04:05"),
    ],
)
def test_the_list_tells_a_keys_state(database, changes, state):
    database.answers[api_keys.LIST] = [{**ROW, **changes}]
    assert state in run("list").stdout
