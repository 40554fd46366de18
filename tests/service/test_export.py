"""`tenants export` and the import of what it wrote, from one database into another."""

from __future__ import annotations

import json
import secrets
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from tests.conftest import free_port, sql

CROWD = 1_100


@pytest.fixture(scope="module")
def moved(broker, tmp_path_factory):
    """An export of two tenants, one of them described; ``folder`` has the key and the file."""
    folder = tmp_path_factory.mktemp("export")
    for tenant in ("acme", "beta", "gone"):
        broker.connect(tenant)
    with broker.client() as admin:
        described = {"name": "Acme Pty Ltd", "labels": {"tier": "gold"}}
        admin.put("/admin/tenants/acme", json=described).raise_for_status()
        admin.post("/admin/tenants/gone/disconnect").raise_for_status()
    made = broker.command("tenants", "export-key", str(folder / "key"))
    assert made.returncode == 0, made.stderr
    (folder / "public").write_text(made.stdout)
    done = exported(broker, folder, "grants", made.stdout.strip())
    assert done.returncode == 0, done.stderr
    assert "2 grants written" in done.stderr
    return folder


@pytest.fixture(scope="module")
def elsewhere(broker, postgres):
    """Another deployment: its own database and encryption key, the same client at Ignition."""
    name = f"elsewhere_{secrets.token_hex(4)}"
    postgres.create_database(name, template="template_broker")
    port = free_port()
    settings = {
        **broker.settings,
        "DATABASE_URL": postgres.url(name),
        "BROKER_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
        "BROKER_PORT": str(port),
        "REDIRECT_URI": f"http://localhost:{port}/callback",
    }
    other = replace(broker, settings=settings, port=port, process=None, logs=[]).start()
    yield other
    other.stop()


@pytest.fixture
def ask(elsewhere, postgres):
    return lambda statement: sql(postgres, elsewhere.settings["DATABASE_URL"], statement)


def exported(broker, folder: Path, name: str, key: str | None = None):
    key = key or str(folder / "public")
    return broker.command("tenants", "export", "--to-key", key, "--out", str(folder / name))


def in_words(text: str) -> str:
    """Without the frame and the line breaks of an error's box."""
    return " ".join(text.replace("│", " ").split())


def taken_in(broker, folder: Path, *options: str, name: str = "grants", key: str = "key"):
    return broker.command(
        "tenants", "import", str(folder / name), "--key", str(folder / key), *options
    )


def test_another_deployment_serves_what_was_exported(moved, broker, elsewhere, fake, ask):
    private = json.loads((moved / "key").read_text())
    assert stat.S_IMODE((moved / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE((moved / "grants").stat().st_mode) == 0o600
    with broker.client() as admin:
        token = admin.get("/token/acme").json()["access_token"]
    written = (moved / "grants").read_text()
    for secret in (token, "acme", private["d"]):
        assert secret not in written
    done = taken_in(elsewhere, moved)
    assert (done.returncode, done.stdout) == (0, "2: acme: imported\n3: beta: imported\n"), (
        done.stderr
    )
    with elsewhere.client(elsewhere.make_key("mover", ["token"], ["*"])) as caller:
        assert caller.get("/token/acme").json()["access_token"] == token
        assert caller.get("/token/gone").status_code == 404
    with elsewhere.client() as admin:
        shown = admin.get("/admin/tenants/acme").json()
        assert (shown["name"], shown["labels"]) == ("Acme Pty Ltd", {"tier": "gold"})
        assert admin.post("/token/acme/refresh").status_code == 200
    again = taken_in(elsewhere, moved, "--skip-connected")
    assert again.returncode == 0
    assert "3: beta: unchanged" in again.stdout


def test_the_export_is_in_the_audit_trail_with_the_keys_thumbprint(moved, broker):
    with broker.client() as admin:
        events = admin.get("/admin/audit").json()["events"]
    (event,) = [event for event in events if event["action"] == "tenants_export"]
    assert (event["actor"], event["detail"]["grants"]) == ("cli", 2)
    assert len(event["detail"]["to_key"]) == 43


def test_without_a_file_it_goes_to_standard_output_and_in_again_from_standard_input(
    moved, broker, elsewhere
):
    key = (moved / "public").read_text().strip()
    done = broker.command("tenants", "export", "--to-key", key)
    assert done.returncode == 0
    assert "2 grants written\n" in done.stderr
    options = ("--key", str(moved / "key"), "--dry-run", "--skip-connected")
    trial = elsewhere.command("tenants", "import", "-", *options, input=done.stdout)
    assert trial.returncode == 0, trial.stderr
    assert len(trial.stdout.splitlines()) == 2


def changed(lines: list[str], how: str) -> list[str]:
    match how:
        case "cut off":
            return lines[:-1]
        case "swapped":
            return [lines[0], lines[2], lines[1], lines[3]]
        case "removed":
            return [lines[0], *lines[2:]]
        case "repeated":
            return [lines[0], lines[1], *lines[1:]]
        case "a bit":
            middle = len(lines[1]) // 2
            other = "A" if lines[1][middle] != "A" else "B"
            return [lines[0], lines[1][:middle] + other + lines[1][middle + 1 :], *lines[2:]]
        case "continued":
            return [*lines, lines[1]]
        case _:
            raise AssertionError(how)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut off", ":3: is not the last line: the file is cut off"),
        ("swapped", ":2: is line 2 of the export: lines are missing, repeated or moved"),
        ("removed", ":2: is line 2 of the export: lines are missing, repeated or moved"),
        ("repeated", ":3: is line 1 of the export: lines are missing, repeated or moved"),
        ("a bit", ":2: can't be decrypted: it was changed, or it belongs to another file"),
        ("continued", ":5: follows the last line; export it again"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_and_nothing_stored(moved, elsewhere, ask, how, said):
    lines = (moved / "grants").read_text().splitlines()
    name = how.replace(" ", "-")
    (moved / name).write_text("\n".join(changed(lines, how)) + "\n")
    before = ask("SELECT count(*) FROM audit_events WHERE action = 'tenant_import'")
    done = taken_in(elsewhere, moved, name=name)
    assert done.returncode == 1
    assert f"{name}{said}" in done.stderr.replace("\n", " ")
    assert "nothing was stored" in done.stderr
    assert ask("SELECT count(*) FROM audit_events WHERE action = 'tenant_import'") == before


def test_keys_that_do_not_fit_are_named_and_not_shown(moved, broker, elsewhere):
    other = broker.command("tenants", "export-key", str(moved / "other"))
    assert other.returncode == 0
    wrong = taken_in(elsewhere, moved, key="other")
    assert wrong.returncode == 1
    assert "grants:1: can't be decrypted: another key is needed" in wrong.stderr.replace("\n", " ")
    no_key = elsewhere.command("tenants", "import", str(moved / "grants"))
    assert no_key.returncode == 2
    assert "is encrypted" in in_words(no_key.stderr)
    public = taken_in(elsewhere, moved, key="public")
    assert public.returncode == 2
    assert "is the public key" in in_words(public.stderr)
    for given, said in (
        (str(moved / "key"), "is a private key"),
        ('{"kty": "EC"}', "is no JWK"),
        (
            '{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}',
            "Ed25519",
        ),
        (str(moved / "nothing"), "can't be read"),
    ):
        refused = exported(broker, moved, "never", given)
        assert refused.returncode == 2, refused.stderr
        assert said in in_words(refused.stderr)
        assert json.loads((moved / "key").read_text())["d"] not in refused.stderr
    assert not (moved / "never").exists()
    taken = exported(broker, moved, "grants")
    assert taken.returncode == 2
    assert "exists" in in_words(taken.stderr)


def test_many_grants_are_written_page_by_page(moved, broker, elsewhere):
    # They live for long: the broker must not renew what Ignition does not know.
    header = "tenant,refresh_token,access_token,expires_at"
    rows = [f"crowd-{n},refresh-{n},access-{n},2099-01-01T00:00:00Z" for n in range(CROWD)]
    (moved / "rows.csv").write_text("\n".join([header, *rows]) + "\n")
    assert broker.command("tenants", "import", str(moved / "rows.csv")).returncode == 0
    done = exported(broker, moved, "crowd")
    assert f"{CROWD + 2} grants written" in done.stderr
    trial = taken_in(elsewhere, moved, "--dry-run", "--skip-connected", name="crowd")
    assert trial.returncode == 0, trial.stderr
    lines = trial.stdout.splitlines()
    assert len(lines) == CROWD + 2
    assert sum(line.endswith(": imported") for line in lines) >= CROWD


def test_a_grant_that_can_not_be_read_leaves_no_file(moved, broker, postgres, database_url):
    sql(
        postgres,
        database_url,
        "UPDATE grants SET refresh_token = (SELECT refresh_token FROM grants "
        "WHERE tenant_id = 'acme') WHERE tenant_id = 'beta'",
    )
    done = exported(broker, moved, "never")
    assert done.returncode == 1
    assert list(moved.glob("never*")) == []
