"""Settings as Kubernetes, Windows and editors write them."""

from __future__ import annotations

import codecs

import pytest
from tests.conftest import Broker
from tests.service.wire import RawCaller

MOVED = {
    "ignition_client_id": "\ufeff{}\n",
    "ignition_client_secret": "{}\r\n",
    "database_url": "\n{}\n",
    "broker_encryption_keys": "{},\n",
    "broker_admin_key": "\ufeff{}\r\n",
}


@pytest.fixture(scope="module")
def broker(idle_broker: Broker) -> Broker:
    """Its secrets in files; the rest in a `.env` of Windows."""
    folder = idle_broker.folder / "secrets"
    folder.mkdir()
    settings = idle_broker.settings
    for name, form in MOVED.items():
        (folder / name).write_text(form.format(settings.pop(name.upper())), newline="")
    lines = [f'{name}=" {value} "' for name, value in settings.items()]
    text = "\r\n".join([*lines, ""])
    (idle_broker.folder / ".env").write_bytes(codecs.BOM_UTF8 + text.encode())
    settings.clear()
    settings["BROKER_SECRETS_DIR"] = f"{folder}\n"
    return idle_broker.start()


def test_a_tenant_is_connected_and_served(broker, fake):
    """The fake takes no other client id, secret or redirect URI than the bare ones."""
    assert "Connected" in broker.connect("acme").text
    with broker.client() as admin:
        assert admin.get("/token/acme").status_code == 200
        assert admin.post("/token/acme/refresh").status_code == 200
        assert admin.get("/proxy/acme/v1/me").status_code == 200


def test_the_admin_key_is_the_bare_one_and_so_is_a_key_that_is_shown_with_blanks(broker):
    key = broker.admin_key
    for shown in (key, f"{key} ", f" {key}\t"):
        call = f"GET /admin/tenants HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shown}\r\n"
        answer = RawCaller(broker.port, key).send(f"{call}Connection: close\r\n\r\n".encode())
        assert answer.status == 200


def test_commands_read_settings_the_same_way(broker):
    assert broker.command("tenants", "list").returncode == 0
    assert broker.command("keys", "status").returncode == 0
    assert broker.command("api-keys", "list").returncode == 0


def test_a_value_that_must_be_a_mistake_is_one_line_by_name_and_never_shown(broker):
    folder = broker.folder / "secrets"
    kept = {name: (folder / name).read_bytes() for name in MOVED}
    secret = kept["ignition_client_secret"].strip()
    try:
        (folder / "ignition_client_secret").write_bytes(b'"' + secret + b'"\n')
        (folder / "broker_admin_key").write_text("\n".join([broker.admin_key] * 2))
        (folder / "database_url").write_bytes(kept["database_url"].decode().encode("utf-16"))
        first = broker.command("serve")
        (folder / "database_url").write_bytes(kept["database_url"])
        second = broker.command("serve")
    finally:
        for name, value in kept.items():
            (folder / name).write_bytes(value)
    told = [*first.stderr.splitlines(), *second.stderr.splitlines()]
    assert (first.returncode, second.returncode) == (2, 2)
    assert {line.partition(":")[0] for line in told} == {
        "DATABASE_URL",
        "IGNITION_CLIENT_SECRET",
        "BROKER_ADMIN_KEY",
    }
    assert len(told) == 3
    for value in (secret.decode(), broker.admin_key):
        assert value not in first.stderr + second.stderr
