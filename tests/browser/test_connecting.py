"""The main job as an admin does it, in a headless Chromium."""

from __future__ import annotations

from playwright.sync_api import expect


def test_an_admin_signs_in_connects_a_tenant_and_disconnects_it(chromium, broker, screenshots):
    page = chromium.new_context(viewport={"width": 1100, "height": 700}).new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: problems.append(message.text) if message.type == "error" else None,
    )
    page.goto(broker.url)
    page.screenshot(path=screenshots / "1-sign-in.png")
    page.fill("#key", broker.admin_key)
    page.click("#sign-in")
    expect(page.locator("h1")).to_have_text("Overview")
    page.fill("#tenant", "acme")
    page.click("#connect-new")
    page.screenshot(path=screenshots / "2-consent.png")
    page.click("#approve")
    expect(page.locator("#connected")).to_have_text("acme is connected")
    expect(page.locator("#account")).to_contain_text("can't be known here")
    page.screenshot(path=screenshots / "3-connected.png")
    page.goto(broker.url)
    expect(page.locator("tbody .status")).to_have_text("connected")
    expect(page.locator("#unasked")).to_contain_text("can't be known here")
    page.screenshot(path=screenshots / "4-console.png")
    with broker.client() as admin:
        assert admin.get("/token/acme").status_code == 200
    page.click("button.danger")
    expect(page.locator("h1")).to_have_text("Disconnect acme?")
    page.click("#disconnect")
    expect(page.locator(".status.disconnected")).to_have_text("disconnected")
    assert problems == []


def test_a_link_is_followed_by_somebody_without_a_key_and_a_denial_is_told(
    chromium, broker, screenshots
):
    with broker.client() as admin:
        link = admin.post("/admin/tenants/beta/connect-link").json()["url"]
    page = chromium.new_context().new_page()
    page.goto(link)
    expect(page.locator("#whose")).to_contain_text("this page can't tell which it is")
    page.screenshot(path=screenshots / "5-link.png")
    page.click("#connect")
    page.click("#deny")
    expect(page.locator("#failed")).to_be_visible()
    page.screenshot(path=screenshots / "6-denied.png")
    page.goto(link)
    expect(page.locator("#failed")).to_have_text("This link does not work")
