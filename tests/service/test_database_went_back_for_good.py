"""A database lost commits, and no replica remembers them."""

from __future__ import annotations

import time

import pytest
from tests.conftest import sha256, wait_until
from tests.service.past import Past, counted, renewed, token, went_back


@pytest.fixture(scope="module")
def more_settings():
    return {"BROKER_REMEMBER_ANSWERS": "0"}


def test_where_nobody_holds_what_was_lost_it_is_said_and_a_live_token_is_served_to_its_end(
    broker, fake, postgres, database_url
):
    past = Past(postgres, database_url)
    broker.connect("behind")
    broker.connect("left")
    with broker.client() as admin:
        past.keep()
        fresh = renewed(admin, "behind")
        assert token(admin, "behind") == fresh, "it is in memory"
        admin.post("/admin/tenants/left/disconnect")
        past.come_back()
        asked = fake.counters()["token_requests"]
        wait_until(lambda: admin.get("/token/behind?min_ttl=0").status_code == 200, 5)
        row = wait_until(
            lambda: (it := admin.get("/admin/tenants/behind").json()).get("last_error") and it, 10
        )
        said = "the database went back: version 2 was stored before, and version 1 is there now"
        assert row["last_error"] == said
        assert [event["outcome"] for event in went_back(admin, "behind")] == ["behind"]
        assert counted(admin, "behind") >= 1
        assert token(admin, "behind") == fresh, "memory's token lives, the row's may be revoked"
        # Asks for a min_ttl that only a new token has.
        assert admin.get("/token/behind?min_ttl=3500").status_code in (200, 503)
        past.sql("UPDATE grants SET next_refresh_at = now() WHERE tenant_id = 'behind'")
        time.sleep(2.5)
        assert fake.counters()["token_requests"] == asked, "the spent refresh token was not sent"
        assert admin.get("/token/left").status_code == 200, "the database is believed"
        body = {"rejected_token_sha256": sha256(fresh)}
        # Nothing else is left, so Ignition's answer to the row's refresh token counts.
        wait_until(
            lambda: admin.post("/token/behind/refresh", json=body).status_code in (200, 409), 10
        )
        assert fake.counters()["token_requests"] > asked
