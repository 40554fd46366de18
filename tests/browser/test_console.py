"""Every page and action of the console in a headless Chromium, with JavaScript and without."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

WIDTHS = (360, 768, 1440)
SCHEMES = ("light", "dark")
# All of them by `make console`; each is looked at in some of them in any case.
LOOKS = (
    [(width, scheme) for width in WIDTHS for scheme in SCHEMES]
    if os.environ.get("CONSOLE_LOOKS") == "all"
    else [(360, "dark"), (1440, "light")]
)
AXE = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
REPORT_VIOLATIONS = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => {
        window.violations.push(event.violatedDirective + " " + event.blockedURI);
    });
"""


@pytest.fixture(scope="module")
def more_settings() -> dict[str, str]:
    return {
        "IGNITION_API_ALLOWANCE": "1000/3600",
        "BROKER_WEBHOOK_ALLOW": "127.0.0.1",
        "BROKER_BRAND": "Example Accounting",
    }


@pytest.fixture(scope="module")
def planted(broker, fake) -> dict[str, str]:
    """Tenants in every state, keys and a webhook; what the addresses of their pages need."""
    with broker.client() as admin:
        for tenant in ("acme", "beta", "gone"):
            broker.connect(tenant)
        described = {"name": "Acme Pty Ltd", "labels": {"tier": "gold", "region": "au"}}
        admin.put("/admin/tenants/acme", json=described).raise_for_status()
        admin.post("/admin/tenants/gone/disconnect").raise_for_status()
        admin.post("/token/acme/refresh").raise_for_status()
        fake.fail("token", 1, status=400, body='{"error": "invalid_grant"}')
        assert admin.post("/token/beta/refresh").status_code == 409
        broker.make_key("invoicing", ["token", "proxy"], ["acme"])
        admin.get("/proxy/acme/reporting/clients?limit=1")
        made = admin.post("/admin/webhooks", json={"url": "http://127.0.0.1:9/hook"})
        made.raise_for_status()
        link = admin.post("/admin/tenants/acme/connect-link").json()["url"]
    return {"webhook": made.json()["id"], "link": link}


@pytest.fixture
def open_page(chromium: Browser, broker) -> Iterator:
    """Opens a page, signed in if asked; at the end nothing may have been blocked or have failed."""
    problems: list[str] = []
    contexts = []

    def open_one(*, signs_in: bool = True, **options) -> Page:
        context = chromium.new_context(**options)
        contexts.append(context)
        context.add_init_script(REPORT_VIOLATIONS)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda message: (
                problems.append(message.text)
                if message.type == "error" and "Failed to load resource" not in message.text
                else None
            ),
        )
        if signs_in:
            page.goto(f"{broker.url}/login")
            page.fill("#key", broker.admin_key)
            page.click("#sign-in")
            expect(page.locator("h1")).to_have_text("Overview")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert problems == []


def addresses(planted: dict[str, str]) -> dict[str, str]:
    """All pages by name; a page that is refused belongs to them."""
    webhook = planted["webhook"]
    return {
        "overview": "/",
        "tenants": "/tenants",
        "tenants-found": "/tenants?q=AC&status=connected&label=tier%3Dgold",
        "tenants-none": "/tenants?q=zzz",
        "tenants-refused": "/tenants?label=gold",
        "tenant": "/tenant?tenant=acme",
        "tenant-ended": "/tenant?tenant=beta",
        "tenant-disconnected": "/tenant?tenant=gone",
        "tenant-unknown": "/tenant?tenant=nobody",
        "disconnect": "/disconnect?tenant=acme",
        "api-keys": "/api-keys",
        "api-key-new": "/api-keys/new",
        "api-key-rotate": "/api-keys/rotate?name=invoicing",
        "api-key-revoke": "/api-keys/revoke?name=invoicing",
        "webhooks": "/webhooks",
        "webhook-new": "/webhooks/new",
        "webhook": f"/webhook?which={webhook}",
        "webhook-delete": f"/webhook/delete?which={webhook}",
        "audit": "/audit",
        "audit-found": "/audit?tenant=acme&action=refresh",
        "audit-refused": "/audit?since=yesterday",
        "sessions": "/sessions",
        "settings": "/settings",
        "login": "/login",
    }


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_every_page_is_accessible_fits_and_breaks_no_policy(
    open_page, broker, planted, screenshots, width, scheme
):
    page = open_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    found = {}
    for name, path in addresses(planted).items():
        page.goto(broker.url + path)
        page.screenshot(path=screenshots / f"console-{name}-{width}-{scheme}.png", full_page=True)
        found[name] = wrong_with(page, width)
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_the_pages_of_a_customer_are_so_too(open_page, broker, screenshots, width, scheme):
    with broker.client() as admin:
        made = admin.post(f"/admin/tenants/customer-{width}-{scheme}/connect-link")
    page = open_page(signs_in=False, viewport={"width": width, "height": 900}, color_scheme=scheme)
    found = {}

    def look(name: str) -> None:
        page.screenshot(path=screenshots / f"console-{name}-{width}-{scheme}.png", full_page=True)
        found[name] = wrong_with(page, width)

    page.goto(made.json()["url"])
    look("link")
    page.click("#connect")
    page.click("#approve")
    expect(page.locator("#connected")).to_contain_text("Example Accounting")
    look("link-connected")
    page.goto(made.json()["url"])
    expect(page.locator("h1")).to_have_text("This link does not work")
    look("link-ended")
    page.goto(f"{broker.url}/callback?error=access_denied")
    look("link-denied")
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def wrong_with(page: Page, width: int) -> list[str]:
    """What axe-core finds, what the policy blocked, and whether it fits the window."""
    expect(page.locator("h1")).to_have_count(1)
    wrong = [
        f"{each['id']}: {node['html'][:200]} {node['failureSummary']}"
        for each in Axe().run(page, options=AXE).response["violations"]
        for node in each["nodes"]
    ]
    wrong += page.evaluate("window.violations")
    if page.evaluate("document.documentElement.scrollWidth") > width:
        wrong.append("is wider than the window")
    return wrong


@pytest.mark.parametrize("scripts", [True, False])
def test_every_action_works_with_scripts_and_without(
    open_page, broker, planted, screenshots, scripts
):
    page = open_page(java_script_enabled=scripts, viewport={"width": 1100, "height": 800})
    tenant = f"walked-{str(scripts).lower()}"
    page.fill("#tenant", tenant)
    page.click("#connect-new")
    page.click("#approve")
    expect(page.locator("#connected")).to_have_text(f"{tenant} is connected")

    page.goto(f"{broker.url}/tenants")
    page.fill("#q", tenant.upper())
    page.click("#filter")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.click(f"text={tenant}")
    expect(page.locator("[data-code]").first).to_be_visible()
    page.click("#refresh")
    expect(page.locator("[role=status]")).to_have_text("A new token was fetched and stored.")
    expect(page.locator(".strip li")).to_have_count(1)
    page.click("#make-link")
    expect(page.locator("#link")).to_contain_text(f"{broker.url}/connect/")
    expect(page.locator("button[data-copy]")).to_be_visible(visible=scripts)
    page.click(f"text=Back to {tenant}")
    page.click("button:has-text('Revoke')")
    expect(page.locator("text=None is open")).to_be_visible()
    page.click("#to-disconnect")
    page.click("#disconnect")
    expect(page.locator("h1 ~ .status")).to_have_text("disconnected")

    page.click("nav >> text=API keys")
    page.click("#new-key")
    page.fill("#name", tenant)
    page.fill("#tenants", tenant)
    page.click("#create-key")
    first = page.inner_text("#key")
    page.goto(f"{broker.url}/api-keys/rotate?name={tenant}")
    page.select_option("#grace", "0")
    page.click("#rotate-key")
    second = page.inner_text("#key")
    assert first != second
    with broker.client(first) as old, broker.client(second) as new:
        assert old.get(f"/token/{tenant}").status_code == 401
        assert new.get(f"/token/{tenant}").status_code == 409
        page.goto(f"{broker.url}/api-keys/revoke?name={tenant}")
        page.click("#revoke-key")
        expect(page.locator("tr", has_text=tenant)).to_contain_text("revoked")
        assert new.get(f"/token/{tenant}").status_code == 401

    page.click("nav >> text=Webhooks")
    page.click("#new-webhook")
    page.fill("#target", "http://127.0.0.1:9/walked")
    page.click("#create-webhook")
    secret = page.inner_text("#secret")
    assert secret.startswith("whsec_")
    page.click("text=To the destination")
    page.click("#test")
    expect(page.locator("[role=status]")).to_contain_text("on its way")
    page.click("#rotate")
    assert page.inner_text("#secret") != secret
    page.click("text=To the destination")
    page.click("#to-delete")
    page.click("#delete")
    expect(page.locator("text=/walked")).to_have_count(0)

    page.click("nav >> text=Audit")
    page.fill("#tenant", tenant)
    page.fill("#action", "disconnect")
    page.click("#filter")
    expect(page.locator("tbody tr")).to_have_count(1)
    with page.expect_download() as download:
        page.click("#export")
    lines = download.value.path().read_text().splitlines()
    assert len(lines) == 1
    assert '"disconnect"' in lines[0]

    other = open_page()
    page.click("nav >> text=Sessions")
    # The newest comes first: the one that was just begun.
    page.click("tbody tr >> nth=0 >> button")
    other.goto(broker.url)
    expect(other.locator("h1")).to_have_text("Sign in")

    page.click("nav >> text=Settings")
    expect(page.locator("tr", has_text="IGNITION_CLIENT_SECRET").first).to_contain_text(
        "set, and not shown"
    )
    page.click("#sign-out")
    expect(page.locator("h1")).to_have_text("Sign in")


def test_times_are_the_browsers_own_with_utc_beside_them(open_page, broker, planted):
    page = open_page(timezone_id="Australia/Sydney", locale="en-AU")
    page.goto(f"{broker.url}/audit")
    shown = page.locator("tbody time").first
    expect(shown).not_to_contain_text("UTC")
    assert shown.get_attribute("title").endswith(" UTC")
    page.goto(f"{broker.url}/tenant?tenant=acme")
    expires = page.locator("time.until").first
    before = expires.inner_text()
    assert before.startswith("in ")
    expect(expires).not_to_have_text(before)


def test_the_keyboard_reaches_the_content_first(open_page, broker, planted):
    page = open_page()
    page.goto(f"{broker.url}/tenants")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
