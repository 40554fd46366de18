"""What a link's holder sees, and where its pages lead back to."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from tests.conftest import consent, decide, sql
from tests.service.test_pages_and_callback import sign_in

APP = "https://app.example.com"
BACK = f"{APP}/settings?tab=ignition"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle r="4"/></svg>'
PREVIEW = {"User-Agent": "Slackbot-LinkExpanding 1.0", "Sec-Purpose": "prefetch;prerender"}


@pytest.fixture(scope="module")
def more_settings(tmp_path_factory) -> dict[str, str]:
    logo: Path = tmp_path_factory.mktemp("brand") / "logo.svg"
    logo.write_text(SVG)
    return {
        "BROKER_BRAND": "Söhne & Example",
        "BROKER_BRAND_LOGO": str(logo),
        "BROKER_BRAND_COLOR": "#0b5fa5",
        "BROKER_RETURN_ORIGINS": f"{APP},http://localhost:9",
    }


@pytest.fixture
def browser():
    with httpx.Client(timeout=30) as client:
        yield client


def make_link(broker, tenant: str, return_to: str | None = BACK) -> dict:
    described = {"name": "Acme internal", "labels": {"tier": "secretly-gold"}}
    if return_to is not None:
        described["return_to"] = return_to
    with broker.client() as admin:
        answer = admin.post(f"/admin/tenants/{tenant}/connect-link", json=described)
    assert answer.status_code == 201, answer.text
    return answer.json()


def ending(page: httpx.Response) -> tuple[str, str, str] | None:
    found = re.search(
        r'id="ending" data-status="(.*?)" data-reason="(.*?)" data-origin="(.*?)"', page.text
    )
    return None if found is None else found.groups()


def assert_public(page: httpx.Response) -> None:
    assert "Söhne &amp; Example" in page.text
    for inner in ("Acme internal", "secretly-gold", "tenant-", 'href="/"', "API keys"):
        assert inner not in page.text


def test_the_pages_name_the_company_and_what_is_shared_and_lead_back(broker, browser):
    url = make_link(broker, "tenant-led-back")["url"]
    page = browser.get(url)
    assert_public(page)
    for part in ("shared", "keeper", "withdrawal"):
        assert f'id="{part}"' in page.text
    assert "<li>read</li>" in page.text
    assert "revoked at Ignition" in page.text
    assert ending(page) is None, "nothing has ended"
    assert f'href="{BACK}"' in page.text
    done = consent(browser, browser.post(url))
    assert done.status_code == 200
    assert_public(done)
    assert f'<a id="back" href="{BACK}">Back to app.example.com</a>' in done.text
    assert ending(done) == ("connected", "", APP)


def test_looks_and_previews_spend_no_link(broker, browser):
    url = make_link(broker, "tenant-looked-at")["url"]
    for _ in range(3):
        assert browser.get(url, headers=PREVIEW).status_code == 200
        assert browser.head(url).status_code == 200
    assert browser.post(url).status_code == 303
    assert browser.get(url).status_code == 410


def test_a_query_of_the_public_page_leads_nowhere(broker, browser):
    url = make_link(broker, "tenant-asked", None)["url"]
    asked = f"{url}?return_to=https%3A%2F%2Fevil.example%2F&embed_origin={APP}"
    page = browser.get(asked)
    done = consent(browser, browser.post(asked))
    for each in (page, done):
        assert each.status_code == 200
        assert "evil.example" not in each.text
        assert 'id="back"' not in each.text
        assert each.headers["cross-origin-opener-policy"] == "same-origin"


def test_a_denial_and_links_that_have_ended_lead_back_and_tell_their_opener(broker, browser):
    url = make_link(broker, "tenant-denied")["url"]
    denied = consent(browser, browser.post(url), approve="deny")
    assert_public(denied)
    assert ending(denied) == ("failed", "access-denied", APP)
    for over in (browser.get(url), browser.post(url)):
        assert over.status_code == 410
        assert_public(over)
        assert ending(over) == ("failed", "link-ended", APP)
        assert f'href="{BACK}"' in over.text
    revoked = make_link(broker, "tenant-denied")
    with broker.client() as admin:
        path = f"/admin/tenants/tenant-denied/connect-links/{revoked['id']}"
        assert admin.delete(path).status_code == 204
    assert ending(browser.get(revoked["url"])) == ("failed", "link-ended", APP)
    forged = browser.get(f"{broker.url}/connect/forged")
    assert (forged.status_code, ending(forged)) == (404, None)


def test_an_expired_link_tells_its_opener(broker, browser, postgres, database_url):
    made = make_link(broker, "tenant-expired")
    expiry = "UPDATE connect_links SET expires_at = now() - interval '1 second'"
    sql(postgres, database_url, f"{expiry} WHERE id = '{made['id']}'")
    assert ending(browser.get(made["url"])) == ("failed", "link-ended", APP)


def test_only_pages_that_lead_back_keep_their_opener(broker, browser):
    url, plain = (make_link(broker, "tenant-opened", to)["url"] for to in (BACK, None))
    assert browser.get(plain).headers["cross-origin-opener-policy"] == "same-origin"
    elsewhere = url.replace("localhost", "127.0.0.1")
    moved = browser.get(elsewhere)
    shown = browser.get(url)
    sent = browser.post(url)
    done = browser.get(decide(browser, sent.headers["location"]))
    for each in (moved, shown, sent, done):
        assert each.headers.get_list("cross-origin-opener-policy") == ["unsafe-none"]
        assert each.headers["x-frame-options"] == "DENY"
        assert len(each.headers.get_list("content-security-policy")) == 1
    assert "script-src 'self'" in done.headers["content-security-policy"]
    assert "script-src" not in shown.headers["content-security-policy"]
    assert re.findall(r"<script(?![^>]* src=)|<style|\son\w+=|javascript:", done.text) == []
    for path in ("/", "/login", "/connect/forged", "/callback?state=x&code=y", "/healthz"):
        answer = browser.get(broker.url + path)
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert "script-src" not in answer.headers["content-security-policy"]


def test_what_an_admin_began_ends_on_the_consoles_page(broker, browser):
    browser.base_url = broker.url
    sign_in(browser, broker.admin_key)
    sent = browser.get("/auth?tenant=tenant-of-console", headers={"Sec-Fetch-Site": "none"})
    done = consent(browser, sent)
    assert "tenant-of-console is connected" in done.text
    assert done.headers["cross-origin-opener-policy"] == "same-origin"
    sent = browser.get("/auth?tenant=tenant-of-console-2", headers={"Sec-Fetch-Site": "none"})
    denied = consent(browser, sent, approve="deny")
    assert "To the tenants" in denied.text


@pytest.mark.parametrize(
    "return_to", ["https://evil.example/", f"{APP}.evil.example/", "/settings", f"{APP}\\x", ""]
)
def test_a_link_that_would_lead_elsewhere_is_not_made(broker, return_to):
    with broker.client() as admin:
        path = "/admin/tenants/tenant-refused/connect-link"
        answer = admin.post(path, json={"return_to": return_to})
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith("return_to: must be a URL")
        assert "BROKER_RETURN_ORIGINS" in answer.json()["detail"]
        assert admin.get("/admin/tenants/tenant-refused").status_code == 404
    done = broker.command("tenants", "connect-link", "tenant-refused", "--return-to", return_to)
    assert done.returncode == 2
    assert "BROKER_RETURN_ORIGINS" in done.stderr


def test_the_command_line_makes_links_that_lead_back(broker, browser):
    done = broker.command("tenants", "connect-link", "tenant-cli", "--return-to", BACK)
    assert done.returncode == 0, done.stderr
    assert f'href="{BACK}"' in browser.get(done.stdout.strip()).text


def test_an_origin_that_left_the_list_is_led_back_to_no_more(
    broker, browser, postgres, database_url
):
    made = make_link(broker, "tenant-left")
    left = "UPDATE connect_links SET return_to = 'https://left.example.com/'"
    sql(postgres, database_url, f"{left} WHERE id = '{made['id']}'")
    page = browser.get(made["url"])
    assert page.status_code == 200
    assert "left.example.com" not in page.text
    assert page.headers["cross-origin-opener-policy"] == "same-origin"
    done = consent(browser, browser.post(made["url"]))
    assert (done.status_code, ending(done)) == (200, None)


def test_connect_js_is_for_any_origin_and_asked_for_again_by_its_etag(broker, browser):
    script = browser.get(f"{broker.url}/connect.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.headers.get_list("cross-origin-resource-policy") == ["cross-origin"]
    assert script.headers["cache-control"] == "public, max-age=300"
    tag = script.headers["etag"]
    for known in (tag, f'"other", W/{tag}'):
        again = browser.get(f"{broker.url}/connect.js", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert browser.get(f"{broker.url}/connect.js", headers={"If-None-Match": '"x"'}).is_success
    assert len(script.content) < 5000
    for own in ("/connect-end.js", "/brand/logo", "/brand.css"):
        policy = browser.get(broker.url + own).headers["cross-origin-resource-policy"]
        assert policy == "same-origin"


def test_the_logo_is_served_so_that_it_can_run_nothing(broker, browser):
    logo = browser.get(f"{broker.url}/brand/logo")
    assert (logo.text, logo.headers["content-type"]) == (SVG, "image/svg+xml")
    assert logo.headers["x-content-type-options"] == "nosniff"
    (policy,) = logo.headers.get_list("content-security-policy")
    assert "default-src 'none'; sandbox;" in policy
    assert "background: #0b5fa5" in browser.get(f"{broker.url}/brand.css").text
