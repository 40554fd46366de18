"""The fake as the public API: its paths, pages, errors, rate limit and token lifetimes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import httpx
import pytest

from ignition_broker.fake_ignition import create_fake_ignition, options_for
from ignition_broker.fake_ignition.practices import SIZES

API = "/external/api/v1"
CLIENT = {"client_id": "demo-client", "client_secret": "demo-secret"}


def fake_for(**options: object) -> httpx.AsyncClient:
    app = create_fake_ignition(options_for("ignitionapp", **options))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://fake")


@pytest.fixture
async def fake() -> AsyncIterator[httpx.AsyncClient]:
    async with fake_for() as client:
        yield client


async def seed(fake: httpx.AsyncClient, **order: object) -> dict[str, str]:
    answer = await fake.post("/control/grants", json=order)
    assert answer.status_code == 201, answer.text
    return answer.json()["grants"][0]


async def rows(fake: httpx.AsyncClient, grant: dict[str, str], path: str, **query: object):
    headers = {"Authorization": f"Bearer {grant['access_token']}"}
    return await fake.get(f"{API}/{path}", params=query, headers=headers)


async def refresh(fake: httpx.AsyncClient, grant: dict[str, str]) -> httpx.Response:
    form = {"grant_type": "refresh_token", "refresh_token": grant["refresh_token"], **CLIENT}
    return await fake.post("/oauth2/token", data=form)


@pytest.mark.parametrize("resource", SIZES)
async def test_every_resource_pages_to_its_end_without_a_gap_or_a_repeat(fake, resource):
    grant, query, seen = await seed(fake), {"limit": 250}, []
    while True:
        answer = (await rows(fake, grant, f"reporting/{resource}", **query)).json()
        page = answer["meta"]["pagination"]
        assert page["limit"] == 250
        seen += [row["slug"] for row in answer["data"]]
        if not page["has_more"]:
            assert page["next_cursor"] is None
            break
        query["cursor"] = page["next_cursor"]
    assert len(seen) == len(set(seen)) == SIZES[resource]


async def test_a_practice_has_the_same_rows_after_a_restart_and_another_has_others(fake):
    asked = ("reporting/invoices",)
    here = (await rows(fake, await seed(fake, practice="a"), *asked)).json()
    other = (await rows(fake, await seed(fake, practice="b"), *asked)).json()
    async with fake_for() as restarted:
        again = (await rows(restarted, await seed(restarted, practice="a"), *asked)).json()
    assert len(here["data"]) == 100
    assert here == again
    assert here["data"] != other["data"]


async def test_a_large_practice_costs_its_pages_alone():
    async with fake_for(practice_size=100) as fake:
        grant, began = await seed(fake), time.perf_counter()
        answer = await rows(fake, grant, "reporting/invoices", updated_from="2025-12-31")
        assert answer.json()["meta"]["pagination"]["has_more"]
        assert time.perf_counter() - began < 2


@pytest.mark.parametrize("moment", ["2025-06-01", "2025-06-01T00:00:00Z", "2025-06-01T00:00:00"])
async def test_updated_from_leaves_out_what_is_older(fake, moment):
    answer = await rows(fake, await seed(fake), "reporting/deals", updated_from=moment, limit=250)
    updates = [row["updated_at"] for row in answer.json()["data"]]
    assert updates[0] >= "2025-06-01"
    assert 0 < len(updates) < SIZES["deals"]
    assert updates == sorted(updates)
    for none in ("2030-01-01", "9999-12-31T23:59:59-14:00"):
        answer = await rows(fake, await seed(fake), "reporting/deals", updated_from=none)
        assert answer.json()["data"] == []


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "251"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"limit": ""}, "limit"),
        ({"cursor": ""}, "cursor"),
        ({"cursor": "!"}, "cursor"),
        ({"cursor": "é"}, "cursor"),
        ({"cursor": "Y2xpZW50cy4xMA"}, "cursor"),
        ({"cursor": "aW52b2ljZXMuMTA="}, "cursor"),
        ({"updated_from": "yesterday"}, "updated_from"),
        ({"updated_from": "2025-13-01"}, "updated_from"),
        ({"updated_from": ""}, "updated_from"),
    ],
)
async def test_a_query_that_makes_no_sense_is_refused_in_the_apis_words(fake, query, told):
    answer = await rows(fake, await seed(fake), "reporting/invoices", **query)
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert error["detail"].startswith(told)


async def test_what_is_not_there_or_not_covered_is_refused_in_the_apis_words(fake):
    grant = await seed(fake)
    for path in ("reporting/secrets", "reporting", "reporting/clients/1", ""):
        answer = await rows(fake, grant, path)
        assert (answer.status_code, list(answer.json())) == (404, ["errors"]), path
    narrow = await seed(fake, scope="read")
    assert (await rows(fake, narrow, "reporting/clients")).status_code == 403
    answer = await rows(fake, {"access_token": "unknown"}, "reporting/clients")
    assert (answer.status_code, list(answer.json())) == (401, ["errors"])
    assert "invalid_token" in answer.headers["www-authenticate"]
    assert "x-ratelimit-limit" not in answer.headers


async def test_a_practice_has_its_requests_an_hour_and_then_429_until_the_reset():
    async with fake_for(requests_per_hour=3) as fake:
        one, same = await seed(fake, practice="p"), await seed(fake, practice="p")
        other = await seed(fake, practice="q")
        left = []
        for grant in (one, same, one):
            answer = await rows(fake, grant, "reporting/deal_stages")
            assert answer.headers["x-ratelimit-limit"] == "3"
            left.append(answer.headers["x-ratelimit-remaining"])
        assert left == ["2", "1", "0"]
        refused = await rows(fake, one, "reporting/deal_stages")
        assert (refused.status_code, list(refused.json())) == (429, ["errors"])
        assert "retry-after" not in refused.headers
        assert "x-ratelimit-remaining" not in refused.headers
        wait = int(refused.headers["x-ratelimit-reset"]) - time.time()
        assert 3590 < wait <= 3600
        assert (await rows(fake, other, "reporting/deal_stages")).status_code == 200
        assert (await fake.get("/control/counters")).json()["api_rate_limited"] == 1
        await fake.post("/control/options", json={"access_token_lifetime_seconds": 9000})
        fresh = (await refresh(fake, one)).json()
        assert (await fake.post("/control/clock", json={"seconds": wait - 30})).is_success
        assert (await rows(fake, fresh, "reporting/deal_stages")).status_code == 429
        await fake.post("/control/clock", json={"seconds": 31})
        assert (await rows(fake, fresh, "reporting/deal_stages")).status_code == 200


async def test_a_refresh_ends_the_earlier_pair(fake):
    grant = await seed(fake)
    renewed = (await refresh(fake, grant)).json()
    assert renewed["expires_in"] == 3600
    assert "refresh_token_expires_in" not in renewed
    assert (await rows(fake, grant, "reporting/deals")).status_code == 401
    assert (await rows(fake, renewed, "reporting/deals")).status_code == 200
    assert (await refresh(fake, grant)).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(("days", "status"), [(89, 200), (90, 400)])
async def test_a_refresh_token_lives_for_90_days(fake, days, status):
    grant = await seed(fake)
    await fake.post("/control/clock", json={"seconds": days * 86_400 + 1})
    answer = await refresh(fake, grant)
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["error"] == "invalid_grant"


async def test_the_user_chooses_the_practice_on_the_consent_page(fake):
    query = {
        "client_id": "demo-client",
        "redirect_uri": "http://localhost:3000/callback",
        "response_type": "code",
        "scope": "reporting",
        "code_challenge": "c" * 43,
        "code_challenge_method": "S256",
    }
    page = await fake.get("/oauth2/authorize", params=query)
    assert 'action="/oauth2/authorize"' in page.text
    assert '<option value="practice_2">' in page.text
    chosen = {**query, "practice": "practice_2", "decision": "approve"}
    assert (await fake.post("/oauth2/authorize", data=chosen)).status_code == 303
    odd = await fake.post("/oauth2/authorize", data={**chosen, "practice": "../x"})
    assert "error=invalid_request" in odd.headers["location"]
    assert (await fake.get("/oauth/authorize", params=query)).status_code == 404
    home = await fake.get("/")
    assert "/oauth2/token" in home.text
    assert "deal_stages" in home.text
