"""Single sign-on, a new sign-in for what can't be undone, and API keys, in a headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect
from tests.conftest import sql
from tests.service.oidc_provider import OidcProvider


@pytest.fixture(scope="module")
def oidc() -> Iterator[OidcProvider]:
    provider = OidcProvider()
    yield provider
    provider.hang_up()


@pytest.fixture(scope="module")
def more_settings(oidc) -> dict[str, str]:
    return {
        "BROKER_OIDC_ISSUER": oidc.issuer,
        "BROKER_OIDC_CLIENT_ID": oidc.client_id,
        "BROKER_OIDC_CLIENT_SECRET": oidc.client_secret,
        "BROKER_OIDC_ADMIN_GROUPS": "broker-admins",
    }


@pytest.fixture
def page(chromium):
    context = chromium.new_context(viewport={"width": 1100, "height": 760})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: problems.append(message.text) if message.type == "error" else None,
    )
    yield page
    context.close()
    assert [text for text in problems if "403" not in text] == []


def sign_on(page, broker) -> None:
    page.goto(broker.url)
    page.click("#single-sign-on")
    page.click("#sign-on")
    expect(page.locator("h1")).to_have_text("Overview")


def test_an_admin_signs_on_makes_a_key_and_signs_out(
    page, broker, screenshots, postgres, database_url
):
    page.goto(broker.url)
    expect(page.locator("#single-sign-on")).to_be_visible()
    page.screenshot(path=screenshots / "7-single-sign-on.png")
    sign_on(page, broker)
    expect(page.locator(".account")).to_contain_text("jo@example.com")
    page.screenshot(path=screenshots / "8-signed-on.png")
    sql(postgres, database_url, "UPDATE sessions SET authenticated_at = now() - interval '1 hour'")
    page.click("text=API keys")
    page.click("#new-key")
    expect(page.locator("h1")).to_have_text("Sign in again")
    page.screenshot(path=screenshots / "9-again.png")
    page.click("#single-sign-on")
    page.click("#sign-on")
    expect(page.locator("h1")).to_have_text("New API key")
    page.fill("#name", "invoicing")
    page.fill("#tenants", "acme, beta-*")
    page.screenshot(path=screenshots / "10-new-key.png", full_page=True)
    page.click("#create-key")
    expect(page.locator("h1")).to_have_text("invoicing is created")
    page.screenshot(path=screenshots / "11-key-created.png")
    with broker.client(page.locator("#key").inner_text()) as service:
        assert service.get("/token/acme").status_code == 404
    page.click("text=To the API keys")
    expect(page.locator("tbody th").first).to_have_text("invoicing")
    page.screenshot(path=screenshots / "12-keys.png")
    page.click("button.danger")
    page.click("#revoke-key")
    expect(page.locator(".status")).to_have_text("revoked")
    page.click("#sign-out")
    expect(page.locator("h1")).to_have_text("Sign in")
    page.goto(f"{broker.url}/api-keys")
    expect(page.locator("h1")).to_have_text("Sign in")


def test_somebody_in_no_admins_group_is_told_what_to_ask_for(page, broker, oidc, screenshots):
    oidc.person["groups"] = ["staff"]
    page.goto(broker.url)
    page.click("#single-sign-on")
    page.click("#sign-on")
    expect(page.locator("#failed")).to_have_text("You may not administer this service")
    page.screenshot(path=screenshots / "13-not-an-admin.png")
    oidc.reset()


def test_a_disconnect_after_a_new_sign_in_is_shown_again_before_it_is_done(
    page, broker, screenshots, postgres, database_url
):
    broker.connect("acme")
    sign_on(page, broker)
    sql(postgres, database_url, "UPDATE sessions SET authenticated_at = now() - interval '1 hour'")
    page.click("button.danger")
    page.fill("#key", broker.admin_key)
    page.click("#sign-in")
    expect(page.locator("h1")).to_have_text("Disconnect acme?")
    page.screenshot(path=screenshots / "14-confirm.png")
    page.click("#disconnect")
    expect(page.locator(".status.disconnected")).to_have_text("disconnected")
