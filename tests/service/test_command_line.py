"""The command, run as an operator runs it."""

from __future__ import annotations

import json
import socket

import pytest

from ignition_broker.storage.schema import newest_version


def test_settings_that_are_missing_or_malformed_are_named_and_never_shown(idle_broker):
    kept = dict(idle_broker.settings)
    try:
        del idle_broker.settings["IGNITION_CLIENT_ID"]
        idle_broker.settings["BROKER_ENCRYPTION_KEYS"] = "hunter2-not-a-key"
        idle_broker.settings["REDIRECT_URI"] = "http://broker.example.com/callback"
        idle_broker.settings["BROKER_ADMIN_KEY"] = "too-short"
        idle_broker.settings["BROKER_PORT"] = ""
        idle_broker.settings["IGNITION_TOKEN_URL"] = "https://ignition..com/oauth/token"
        idle_broker.settings["DATABASE_URL"] = "postgresql://broker:hunter3@host:x/broker"
        ended = idle_broker.command("serve")
        assert ended.returncode == 2
        lines = ended.stderr.strip().splitlines()
        assert len(lines) == 6, ended.stderr
        for name in (
            "IGNITION_CLIENT_ID: is missing",
            "BROKER_ENCRYPTION_KEYS: ",
            "REDIRECT_URI: must be https",
            "IGNITION_TOKEN_URL: must be an absolute",
            "BROKER_ADMIN_KEY: must have at least 32",
            "DATABASE_URL: has no proper host and port",
        ):
            assert any(line.startswith(name) for line in lines), (name, lines)
        assert all("example: " in line for line in lines)
        for value in ("hunter2", "hunter3", "too-short"):
            assert value not in ended.stderr
    finally:
        idle_broker.settings.clear()
        idle_broker.settings.update(kept)


def test_a_start_with_placeholder_addresses_says_in_one_line_what_to_set(idle_broker):
    kept = dict(idle_broker.settings)
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            idle_broker.settings["BROKER_PORT"] = str(taken.getsockname()[1])
            idle_broker.settings["IGNITION_API_URL"] = ""
            ended = idle_broker.command("serve")
            assert ended.returncode != 0
            (line,) = (line for line in ended.stderr.splitlines() if "placeholder" in line)
            assert "IGNITION_API_URL" in line
            assert "IGNITION_TOKEN_URL" not in line
            assert "IGNITION_PROFILE=ignitionapp" in line
            idle_broker.settings["IGNITION_PROFILE"] = "ignitionapp"
            assert "placeholder" not in idle_broker.command("serve").stderr
    finally:
        idle_broker.settings.clear()
        idle_broker.settings.update(kept)


def test_a_command_asks_for_the_settings_that_it_uses(idle_broker):
    kept = dict(idle_broker.settings)
    try:
        idle_broker.settings.clear()
        idle_broker.settings["DATABASE_URL"] = kept["DATABASE_URL"] + "?sslmode=prefer"
        assert idle_broker.command("migrate").returncode == 0
        assert idle_broker.command("tenants", "list", "--json").stdout.strip() == "[]"
        ended = idle_broker.command("keys", "rotate")
        assert (ended.returncode, len(ended.stderr.strip().splitlines())) == (2, 1), ended.stderr
        del idle_broker.settings["DATABASE_URL"]
        assert idle_broker.command("migrate").stderr.startswith("DATABASE_URL: is missing")
    finally:
        idle_broker.settings.clear()
        idle_broker.settings.update(kept)


def test_settings_may_be_files(idle_broker, tmp_path):
    kept = dict(idle_broker.settings)
    try:
        for name, value in kept.items():
            (tmp_path / name.lower()).write_text(value)
        idle_broker.settings.clear()
        idle_broker.settings["BROKER_SECRETS_DIR"] = str(tmp_path)
        assert idle_broker.command("migrate").returncode == 0
    finally:
        idle_broker.settings.clear()
        idle_broker.settings.update(kept)


def test_migrate_can_be_run_again(idle_broker):
    ended = idle_broker.command("migrate")
    assert ended.returncode == 0, ended.stderr
    assert newest_version() in ended.stdout


def test_keys_are_made_listed_and_revoked(idle_broker):
    made = idle_broker.command(
        "api-keys", "create", "ops", "--tenants", "acme,beta-*", "--scopes", "token"
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("ibk_")
    assert len(made.stdout.split()) == 1
    listed = idle_broker.command("api-keys", "list", "--json")
    assert [row["name"] for row in json.loads(listed.stdout)] == ["ops"]
    assert made.stdout.strip() not in listed.stdout
    assert idle_broker.command("api-keys", "revoke", "ops").returncode == 0
    again = idle_broker.command("api-keys", "revoke", "ops")
    assert again.returncode == 1
    assert len(again.stderr.strip().splitlines()) == 1


def test_a_key_is_held_to_paths_and_the_lists_show_them(idle_broker):
    rules = "GET /v1/*, POST /v1/proposals"
    made = idle_broker.command(
        "api-keys", "create", "held", "--tenants=*", "--scopes=proxy", "--paths", rules
    )
    assert made.returncode == 0, made.stderr
    assert idle_broker.command("api-keys", "create", "free", "--tenants=*").returncode == 0
    rows = json.loads(idle_broker.command("api-keys", "list", "--json").stdout)
    shown = {row["name"]: row["paths"] for row in rows}
    assert shown["held"] == ["GET /v1/*", "POST /v1/proposals"]
    assert shown["free"] is None
    idle_broker.settings["COLUMNS"] = "200"
    try:
        table = idle_broker.command("api-keys", "list").stdout
    finally:
        del idle_broker.settings["COLUMNS"]
    assert "GET /v1/*,POST /v1/proposals" in table
    assert "all" in next(line for line in table.splitlines() if "free" in line)


@pytest.mark.parametrize(
    ("scopes", "paths", "mend"),
    [
        ("proxy", "GET v1", "paths: 'GET v1' is no rule"),
        ("proxy", "", "paths: name at least one rule"),
        ("token,proxy", "GET /v1/*", "scopes: a key with paths has the scope 'proxy' alone"),
        ("admin", "GET /v1/*", "scopes: a key with paths has the scope 'proxy' alone"),
    ],
)
def test_paths_that_would_hold_nothing_are_wrong_usage(idle_broker, scopes, paths, mend):
    ended = idle_broker.command(
        "api-keys", "create", "x", "--tenants=*", f"--scopes={scopes}", f"--paths={paths}"
    )
    assert ended.returncode == 2
    assert mend in " ".join(ended.stderr.replace("│", " ").split())
    assert ended.stdout == ""


@pytest.mark.parametrize("expires", ["soon", "-1d", "90"])
def test_a_malformed_duration_is_wrong_usage(idle_broker, expires):
    ended = idle_broker.command("api-keys", "create", "x", "--tenants", "*", f"--expires={expires}")
    assert ended.returncode == 2


def test_tenants_are_linked_shown_refreshed_and_disconnected(broker):
    link = broker.command("tenants", "connect-link", "cli")
    assert link.stdout.startswith(broker.url + "/connect/")
    broker.connect("cli")
    shown = json.loads(broker.command("tenants", "show", "cli", "--json").stdout)
    assert shown["status"] == "connected"
    assert broker.command("tenants", "refresh", "cli").returncode == 0
    listed = json.loads(broker.command("tenants", "list", "--json").stdout)
    assert [row["tenant"] for row in listed] == ["cli"]
    assert broker.command("tenants", "disconnect", "cli").returncode == 0
    with broker.client() as admin:
        assert admin.get("/token/cli").status_code == 409
    nobody = broker.command("tenants", "show", "nobody")
    assert (nobody.returncode, len(nobody.stderr.strip().splitlines())) == (1, 1)
    assert broker.command("tenants", "show", "NO!").returncode == 2


def test_keys_rotate_leaves_every_token_readable(broker):
    broker.connect("rotated")
    with broker.client() as admin:
        before = admin.get("/token/rotated").json()["access_token"]
    old = broker.settings["BROKER_ENCRYPTION_KEYS"]
    new = broker.command("keys", "generate").stdout.strip()
    broker.settings["BROKER_ENCRYPTION_KEYS"] = f"{new},{old}"
    ended = broker.command("keys", "rotate")
    assert ended.returncode == 0, ended.stderr
    assert " grants re-encrypted with key " in ended.stdout
    assert broker.stop() == 0
    broker.settings["BROKER_ENCRYPTION_KEYS"] = new
    broker.start()
    with broker.client() as admin:
        assert admin.get("/token/rotated").json()["access_token"] == before


def test_a_database_that_is_away_is_one_line(idle_broker):
    kept = idle_broker.settings["DATABASE_URL"]
    idle_broker.settings["DATABASE_URL"] = "postgresql://nobody:x@127.0.0.1:1/nothing"
    try:
        ended = idle_broker.command("migrate")
    finally:
        idle_broker.settings["DATABASE_URL"] = kept
    assert (ended.returncode, len(ended.stderr.strip().splitlines())) == (1, 1), ended.stderr
