"""`connect.js` in a page of another origin: the pop-up, Ignition, and what the page hears."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect
from tests.conftest import free_port

DOCS = Path(__file__).parents[2] / "docs/connect-links.md"
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40"><style>c{fill:red}</style>'
    '<circle cx="20" cy="20" r="18" fill="#0b5fa5"/></svg>'
)


class HostPage:
    """Serves the page of the documentation, with the broker's address and a link in it."""

    def __init__(self, port: int) -> None:
        self.html = b""
        self.origin = f"http://localhost:{port}"
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(outer.html)

            def log_message(self, *_args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def show(self, broker_url: str, link: str) -> None:
        found = re.search(r"```html\n(.*?)```", DOCS.read_text(), re.DOTALL)
        assert found is not None
        html = found[1].replace("https://broker.example.com/connect/LINK", link)
        self.html = html.replace("https://broker.example.com", broker_url).encode()
        assert b"broker.example.com" not in self.html

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def host() -> Iterator[HostPage]:
    page = HostPage(free_port())
    yield page
    page.stop()


@pytest.fixture(scope="module")
def stranger() -> Iterator[HostPage]:
    """A page whose origin is on no list."""
    page = HostPage(free_port())
    yield page
    page.stop()


@pytest.fixture(scope="module")
def more_settings(host, fake, tmp_path_factory) -> dict[str, str]:
    logo = tmp_path_factory.mktemp("brand") / "logo.svg"
    logo.write_text(SVG)
    return {
        "BROKER_BRAND": "Example Accounting",
        "BROKER_BRAND_LOGO": str(logo),
        "BROKER_BRAND_COLOR": "#0b5fa5",
        "BROKER_RETURN_ORIGINS": host.origin,
        "IGNITION_IDENTITY_URL": f"{fake.url}/v1/me",
        "IGNITION_IDENTITY_ID": "/practice_id",
        "IGNITION_IDENTITY_NAME": "/practice",
    }


@pytest.fixture
def page(chromium):
    context = chromium.new_context(viewport={"width": 900, "height": 600})
    yield context.new_page()
    context.close()


def make_link(broker, host, tenant: str) -> dict:
    with broker.client() as admin:
        back = {"return_to": f"{host.origin}/settings"}
        answer = admin.post(f"/admin/tenants/{tenant}/connect-link", json=back)
    assert answer.status_code == 201, answer.text
    return answer.json()


def open_popup(page, host, broker, link: str):
    host.show(broker.url, link)
    page.goto(host.origin)
    with page.expect_popup() as opened:
        page.click("#connect")
    return opened.value


def result(page):
    return page.locator("#result")


def test_a_success_is_called_back_and_closes_the_popup(page, broker, host, screenshots):
    link = make_link(broker, host, "embedded")["url"]
    popup = open_popup(page, host, broker, link)
    expect(popup.locator("h1")).to_contain_text("Example Accounting")
    popup.screenshot(path=screenshots / "20-embedded-link.png", full_page=True)
    popup.click("#connect")
    with popup.expect_event("close"):
        popup.click("#approve")
    expect(result(page)).to_have_text("connected")
    with broker.client() as admin:
        assert admin.get("/token/embedded").status_code == 200


def test_a_refusal_at_ignition_is_called_back_and_the_popup_says_why(
    page, broker, host, screenshots
):
    popup = open_popup(page, host, broker, make_link(broker, host, "refused")["url"])
    popup.click("#connect")
    popup.click("#deny")
    expect(result(page)).to_have_text("failed: access-denied")
    expect(popup.locator("#failed")).to_be_visible()
    popup.screenshot(path=screenshots / "21-embedded-denied.png", full_page=True)


def test_a_closed_popup_is_called_back(page, broker, host):
    popup = open_popup(page, host, broker, make_link(broker, host, "closed")["url"])
    expect(popup.locator("#connect")).to_be_visible()
    popup.close()
    expect(result(page)).to_have_text("closed")


def test_a_link_that_has_ended_is_called_back(page, broker, host):
    made = make_link(broker, host, "ended")
    with broker.client() as admin:
        path = f"/admin/tenants/ended/connect-links/{made['id']}"
        assert admin.delete(path).status_code == 204
    open_popup(page, host, broker, made["url"])
    expect(result(page)).to_have_text("failed: link-ended")


def test_another_account_is_called_back(page, broker, host):
    for practice, told in (("practice_1", "connected"), ("practice_2", "failed: account-mismatch")):
        popup = open_popup(page, host, broker, make_link(broker, host, "changed")["url"])
        popup.click("#connect")
        popup.select_option("select[name=practice]", practice)
        popup.click("#approve")
        expect(result(page)).to_have_text(told)


def test_a_blocked_popup_is_called_back(page, broker, host):
    host.show(broker.url, make_link(broker, host, "blocked")["url"])
    page.add_init_script("window.open = () => null")
    page.goto(host.origin)
    page.click("#connect")
    expect(result(page)).to_have_text("failed: popup-blocked")


def test_a_page_of_another_origin_hears_nothing(page, broker, host, stranger):
    """It has got hold of a link, opens it, and listens to any message."""
    page.add_init_script("window.heard = []; addEventListener('message', e => heard.push(e.data))")
    popup = open_popup(page, stranger, broker, make_link(broker, host, "overheard")["url"])
    popup.click("#connect")
    popup.click("#approve")
    expect(popup.locator("#connected")).to_be_visible()
    assert popup.evaluate("window.opener !== null"), "it could have been told"
    assert popup.evaluate("document.getElementById('ending').dataset.origin") == host.origin
    page.wait_for_timeout(500)
    assert page.evaluate("heard") == []
    popup.close()
    expect(result(page)).to_have_text("closed")


def test_a_forged_success_is_not_believed(page, broker, host, stranger):
    """By the page itself, by a frame of another origin, and by a pop-up that went elsewhere."""
    popup = open_popup(page, host, broker, make_link(broker, host, "forged")["url"])
    expect(popup.locator("#connect")).to_be_visible()
    forged = "{type: 'ignition-broker:connect', status: 'connected'}"
    page.evaluate(f"window.postMessage({forged}, '*')")
    stranger.html = f"<script>(opener || parent).postMessage({forged}, '*')</script>".encode()
    page.evaluate(
        "url => document.body.append(Object.assign(document.createElement('iframe'), {src: url}))",
        stranger.origin,
    )
    popup.goto(stranger.origin)
    page.wait_for_timeout(800)
    expect(result(page)).to_have_text("")
    popup.close()
    expect(result(page)).to_have_text("closed")


def test_a_link_of_another_broker_is_not_opened(page, broker, host, stranger):
    host.show(broker.url, f"{stranger.origin}/connect/x")
    page.goto(host.origin)
    with page.expect_event("pageerror") as thrown:
        page.click("#connect")
    assert "the link must be at" in str(thrown.value)


def test_without_javascript_the_link_opens_in_place_and_leads_back(
    chromium, broker, host, screenshots
):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    host.show(broker.url, make_link(broker, host, "plain")["url"])
    page.goto(host.origin)
    page.click("#connect")
    page.click("#connect")
    page.click("#approve")
    expect(page.locator("#connected")).to_contain_text("Example Accounting")
    page.screenshot(path=screenshots / "22-thank-you.png", full_page=True)
    page.click("#back")
    expect(page).to_have_url(f"{host.origin}/settings")
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1440])
def test_the_public_pages_fit_and_can_be_read(chromium, broker, host, screenshots, scheme, width):
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.goto(make_link(broker, host, f"seen-{scheme}-{width}")["url"])
    fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert page.evaluate(fits)
    assert page.locator("img.logo").evaluate("image => image.naturalWidth > 0")
    page.screenshot(path=screenshots / f"23-link-{scheme}-{width}.png", full_page=True)
    button = page.locator("#connect")
    color = (
        "element => [getComputedStyle(element).color, getComputedStyle(element).backgroundColor]"
    )
    assert button.evaluate(color) == ["rgb(255, 255, 255)", "rgb(11, 95, 165)"]
    button.focus()
    page.keyboard.press("Enter")
    page.click("#approve")
    expect(page.locator("#connected")).to_be_visible()
    assert page.evaluate(fits)
    page.screenshot(path=screenshots / f"24-connected-{scheme}-{width}.png", full_page=True)
    assert problems == []
    context.close()
