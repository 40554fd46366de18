"""The incident responses of SECURITY.md, run exactly as they are written there."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from tests.conftest import sql, wait_until
from tests.service.test_pages_and_callback import sign_in

PAGE = (Path(__file__).parents[2] / "SECURITY.md").read_text()


@pytest.fixture
def admins(broker):
    """Two browsers that are signed in by different keys."""
    with (
        httpx.Client(base_url=broker.url, timeout=30) as one,
        httpx.Client(base_url=broker.url, timeout=30) as another,
    ):
        sign_in(one, broker.admin_key)
        sign_in(another, broker.make_key("another-admin", ["admin"], ["*"]))
        yield one, another
    with broker.client() as admin:
        admin.delete("/admin/api-keys/another-admin")


def is_signed_in(browser: httpx.Client) -> bool:
    return browser.get("/").status_code == 200


def test_one_statement_ends_all_sessions_at_their_next_page(admins, postgres, database_url):
    (statement,) = re.findall(r"^```sql\n(.*?);\n```", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert all(is_signed_in(browser) for browser in admins)
    sql(postgres, database_url, statement)
    assert not any(is_signed_in(browser) for browser in admins)


def test_one_statement_ends_the_sessions_of_one_person_only(admins, postgres, database_url):
    (statement,) = re.findall(r"`(UPDATE sessions [^`]*LIKE[^`]*)`", PAGE)
    leaver, stays = admins
    # As single sign-on writes it (`broker.admins.single_sign_on.Identity.actor`).
    sql(
        postgres,
        database_url,
        "UPDATE sessions SET actor = 'jo@example.com (oidc:u-1)' WHERE actor = 'bootstrap-admin'",
    )
    sql(postgres, database_url, statement.replace("SUBJECT", "u-1"))
    assert not is_signed_in(leaver)
    assert is_signed_in(stays)


def test_a_lost_admin_gets_in_with_the_database_alone(broker):
    (command,) = re.findall(r"`ignition-broker (api-keys create rescue[^`]*)`", PAGE)
    kept = broker.settings
    broker.settings = {"DATABASE_URL": kept["DATABASE_URL"]}
    try:
        made = broker.command(*command.split())
    finally:
        broker.settings = kept
    assert made.returncode == 0, made.stderr
    with httpx.Client(base_url=broker.url, timeout=30) as browser:
        assert sign_in(browser, made.stdout.strip()).status_code == 303
        assert is_signed_in(browser)
        assert broker.command("api-keys", "revoke", "rescue").returncode == 0
        assert not is_signed_in(browser)


def test_a_leaked_key_ends_with_the_command_of_the_page(broker):
    assert "`ignition-broker api-keys rotate NAME --grace 0`" in PAGE
    leaked = broker.make_key("leaked", ["token"], ["*"])
    with broker.client(leaked) as thief:
        assert thief.get("/token/acme").status_code == 404
        rotated = broker.command("api-keys", "rotate", "leaked", "--grace", "0")
        assert rotated.returncode == 0, rotated.stderr
        wait_until(lambda: thief.get("/token/acme").status_code == 401, 2, "the old key's end")
    with broker.client(rotated.stdout.strip()) as service:
        assert service.get("/token/acme").status_code == 404
