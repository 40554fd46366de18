"""`GET /auth` in an admin's browser that another site sent there (RFC 9700 section 4.7)."""

from __future__ import annotations

import pytest
from tests.conftest import consent
from tests.service.test_pages_and_callback import begin, browser, hidden, sign_in, status_of

__all__ = ["browser"]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_cannot_connect_a_tenant(browser, broker, site):
    sign_in(browser, broker.admin_key)
    tenant = f"forced-{site}"
    page = browser.get(f"/auth?tenant={tenant}", headers={"Sec-Fetch-Site": site})
    assert page.status_code == 200
    assert f"Connect {tenant}?" in page.text
    with broker.client() as admin:
        assert admin.get(f"/admin/tenants/{tenant}").status_code == 404, "nothing was begun"
    data = {"tenant": tenant, "csrf": hidden(page.text, "csrf")}
    assert consent(browser, browser.post("/connect", data=data)).status_code == 200
    assert status_of(broker, tenant) == "connected"


@pytest.mark.parametrize("site", ["none", "same-origin"])
def test_an_admin_who_typed_the_address_or_signed_in_for_it_goes_straight_on(browser, broker, site):
    begin(browser, broker, "typed")
    answer = browser.get("/auth?tenant=typed", headers={"Sec-Fetch-Site": site})
    assert answer.status_code == 303
