"""Which account is connected, as those see it who connect and those who administer."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def more_settings(fake) -> dict[str, str]:
    return {
        "IGNITION_IDENTITY_URL": f"{fake.url}/v1/me",
        "IGNITION_IDENTITY_ID": "/practice_id",
        "IGNITION_IDENTITY_NAME": "/practice",
    }


def follow(page, broker, tenant: str, practice: str) -> None:
    with broker.client() as admin:
        described = {"name": "Acme Pty Ltd", "labels": {"tier": "gold"}}
        made = admin.post(f"/admin/tenants/{tenant}/connect-link", json=described)
    page.goto(made.json()["url"])
    expect(page.locator("#whose")).to_contain_text("The page at the end says which it was")
    page.click("#connect")
    page.select_option("select[name=practice]", practice)
    page.click("#approve")


def test_another_account_is_told_and_confirmed_in_the_console(chromium, broker, screenshots):
    customer = chromium.new_context(viewport={"width": 1100, "height": 700}).new_page()
    follow(customer, broker, "acme", "practice_1")
    expect(customer.locator("#account")).to_contain_text("Northwind Accounting")
    customer.screenshot(path=screenshots / "10-connected-account.png")
    follow(customer, broker, "beta", "practice_2")
    follow(customer, broker, "acme", "practice_2")
    expect(customer.locator("#failed")).to_have_text("This is another account")
    customer.screenshot(path=screenshots / "11-another-account.png")

    admin = chromium.new_context(viewport={"width": 1100, "height": 700}).new_page()
    admin.goto(broker.url)
    admin.fill("#key", broker.admin_key)
    admin.click("#sign-in")
    expect(admin.locator("td", has_text="a reconnect was for Quillmark & Fenn")).to_be_visible()
    admin.screenshot(path=screenshots / "12-console-accounts.png")
    admin.click("text=confirm or discard")
    expect(admin.locator("#now")).to_contain_text("practice_1")
    expect(admin.locator("#other")).to_contain_text("practice_2")
    admin.screenshot(path=screenshots / "13-confirm-account.png")
    admin.click("#confirm")
    expect(admin.locator("#account", has_text="shared with beta")).to_be_visible()
    admin.screenshot(path=screenshots / "14-console-shared.png")
    customer.reload()
    expect(customer.locator("#connected")).to_have_text("acme is connected")

    follow(customer, broker, "acme", "practice_3")
    admin.goto(broker.url)
    admin.click("text=confirm or discard")
    admin.click("#discard")
    expect(admin.locator("h1")).to_have_text("acme")
    expect(admin.locator("text=confirm or discard")).to_have_count(0)
    with broker.client() as caller:
        assert caller.get("/admin/tenants/acme").json()["account"]["id"] == "practice_2"
