"""`serve --workers 2`: two processes behind one port."""

from __future__ import annotations

import asyncio
import hashlib

import httpx
import pytest


@pytest.fixture(scope="module")
def workers(idle_broker):
    idle_broker.arguments = ("--workers", "2")
    return idle_broker.start()


async def test_workers_share_one_refresh(workers, fake):
    workers.connect("shared")
    headers = {"Authorization": f"Bearer {workers.admin_key}"}
    before = fake.counters()["refreshes"]
    # A client for each call, so that both workers get some.
    async with httpx.AsyncClient(base_url=workers.url, headers=headers, timeout=30) as client:
        token = (await client.get("/token/shared")).json()["access_token"]
        body = {"rejected_token_sha256": hashlib.sha256(token.encode()).hexdigest()}
        answers = await asyncio.gather(
            *(client.post("/token/shared/refresh", json=body) for _ in range(60))
        )
    assert {answer.status_code for answer in answers} == {200}
    assert fake.counters()["refreshes"] == before + 1


def test_sigterm_lets_every_worker_store_what_is_in_flight_and_ends_in_order(workers, fake):
    workers.connect("closing")
    with workers.client() as admin:
        first = admin.get("/token/closing").json()["access_token"]
        fake.fail("token", 1, delay_seconds=1.0)
        with pytest.raises(httpx.ReadTimeout):
            admin.post("/token/closing/refresh", timeout=0.3)
    assert workers.stop() == 0
    workers.start()
    with workers.client() as admin:
        assert admin.get("/token/closing").json()["access_token"] != first
        assert admin.post("/token/closing/refresh").status_code == 200
    assert fake.counters()["refresh_token_reuses"] == 0
