"""All pages of a list through real brokers: 3,000 rows here, 102,000 by `make paging`."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.conftest import Broker, Fake, wait_until

SIZE = int(os.environ.get("PAGING_SIZE", "1"))
ROWS = 3_000 * SIZE
PAGE = 125
LIST = f"/proxy/acme/reporting/proposals?limit={PAGE}"
ALL = {"Broker-Paginate": "all"}
CHECKPOINTS = {"Broker-Paginate": "all, checkpoints"}
PAGE_ON_PAGING = Path(__file__).parents[2] / "docs" / "paging.md"
PAUSE_SECONDS = 0.05
OWN = '{"broker":{'


@pytest.fixture(scope="module")
def fake_options() -> dict[str, object]:
    return {
        "profile": "ignitionapp",
        "default_scope": "reporting",
        "practice_size": SIZE,
        "requests_per_hour": 10**9,
    }


@pytest.fixture(scope="module")
def more_settings(fake) -> dict[str, str]:
    return {
        "IGNITION_AUTHORIZE_URL": f"{fake.url}/oauth2/authorize",
        "IGNITION_TOKEN_URL": f"{fake.url}/oauth2/token",
        "IGNITION_REVOKE_URL": f"{fake.url}/oauth2/revoke",
        "IGNITION_API_URL": f"{fake.url}/external/api/v1",
        "IGNITION_SCOPES": "reporting",
    }


@pytest.fixture(scope="module")
def key(broker: Broker) -> str:
    broker.connect("acme")
    return broker.make_key("reports", ["proxy"], ["acme"])


@pytest.fixture
def service(broker: Broker, key: str) -> Iterator[httpx.Client]:
    with broker.client(key) as client:
        yield client


@dataclass
class Import:
    """A caller's side: takes rows, and knows where to go on. Rows behind the last line of the
    broker's own are forgotten where a stream breaks off."""

    rows: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    told: dict = field(default_factory=dict)
    seen: int = 0

    def take(self, line: str) -> None:
        if line.startswith(OWN):
            self.told = json.loads(line)["broker"]
            self.rows += self.pending
            self.pending = []
        else:
            self.pending.append(line)
            self.seen += 1

    def resume(self, service: httpx.Client, *, stops_after: int | None = None) -> None:
        """Goes on from where the last stream ended; hangs up after so many rows."""
        self.pending, self.seen = [], 0
        cursor = {"cursor": self.told["cursor"]} if self.told else {}
        url = httpx.URL(LIST).copy_merge_params(cursor)
        with service.stream("GET", url, headers=CHECKPOINTS) as answer:
            assert answer.headers["content-type"] == "application/x-ndjson"
            for line in answer.iter_lines():
                self.take(line)
                if stops_after is not None and self.seen >= stops_after:
                    return

    def assert_is_whole(self) -> None:
        slugs = [json.loads(row)["slug"] for row in self.rows]
        assert slugs == [f"prop_{number:06}" for number in range(1, ROWS + 1)]
        assert self.told["complete"] is True


def rows_page_by_page(service: httpx.Client) -> list[str]:
    rows, cursor = [], {}
    while cursor is not None:
        answer = service.get(httpx.URL(LIST).copy_merge_params(cursor))
        # As the fake writes JSON, so that the bytes can be compared.
        rows += [
            json.dumps(row, ensure_ascii=False, separators=(",", ":"))
            for row in answer.json()["data"]
        ]
        pagination = answer.json()["meta"]["pagination"]
        cursor = {"cursor": pagination["next_cursor"]} if pagination["has_more"] else None
    return rows


@contextmanager
def memory_watched(broker: Broker) -> Iterator[list[int]]:
    """The broker's resident bytes before the block, and at their most amid it."""
    assert broker.process is not None
    process = psutil.Process(broker.process.pid)
    seen, done = [process.memory_info().rss] * 2, threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            seen[1] = max(seen[1], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def test_all_rows_come_in_one_stream_in_flat_memory(broker, service):
    assert service.get("/proxy/acme/reporting/deal_stages").status_code == 200
    began = time.monotonic()
    with memory_watched(broker) as memory, service.stream("GET", LIST, headers=ALL) as answer:
        assert answer.status_code == 200
        *rows, last = answer.iter_lines()
    seconds = time.monotonic() - began
    before, most = (each / 1e6 for each in memory)
    print(f"\n{len(rows)} rows in {seconds:.2f} s: {len(rows) / seconds:.0f} rows/s")
    print(f"resident memory: {before:.1f} MB before, {most:.1f} MB at its most")
    assert rows == rows_page_by_page(service)
    assert len(rows) == ROWS
    assert json.loads(last)["broker"] == {
        "complete": True,
        "cursor": None,
        "rows": ROWS,
        "pages": ROWS // PAGE,
    }
    assert most - before < 8


def test_a_caller_that_hangs_up_goes_on_from_its_last_checkpoint(service):
    mine = Import()
    mine.resume(service, stops_after=ROWS // 3)
    mine.resume(service, stops_after=ROWS // 4 + 1)
    mine.resume(service)
    mine.assert_is_whole()


@contextmanager
def after_pages(fake: Fake, act: Callable[[], object]) -> Iterator[None]:
    """Acts once five pages more were asked for, each of which takes a while."""
    asked = fake.counters()["api_requests"]
    fake.fail("api", 10**6, delay_seconds=PAUSE_SECONDS)

    def wait_and_act() -> None:
        wait_until(lambda: fake.counters()["api_requests"] >= asked + 5)
        act()

    acting = threading.Thread(target=wait_and_act)
    acting.start()
    yield
    acting.join()
    fake.control("reset")


def test_a_stream_whose_broker_is_killed_goes_on_from_the_last_checkpoint(broker, fake, service):
    mine = Import()
    with (
        after_pages(fake, lambda: broker.stop(signal.SIGKILL)),
        pytest.raises(httpx.RemoteProtocolError),
    ):
        mine.resume(service)
    assert mine.told["complete"] is False
    assert 0 < len(mine.rows) < ROWS
    broker.start()
    mine.resume(service)
    mine.assert_is_whole()


def test_a_broker_that_is_told_to_stop_says_where_to_go_on(broker, fake, service):
    mine = Import()
    with after_pages(fake, broker.stop):
        mine.resume(service)
    assert mine.told["complete"] is False
    assert mine.told["error"]["type"] == "urn:ignition-broker:unavailable"
    assert mine.pending == []
    broker.start()
    mine.resume(service)
    mine.assert_is_whole()


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"status": 500}, "page-refused"),
        ({"drop": "during"}, "upstream-unreachable"),
        ({"drop": "after"}, "upstream-unreachable"),
        ({"status": 200, "body": "{}", "content_type": "application/json"}, "page-unreadable"),
    ],
)
def test_an_api_that_fails_midway_is_told_and_the_stream_goes_on_from_there(
    fake, service, fault, code
):
    def fail() -> None:
        fake.control("reset")
        fake.fail("api", 2, **fault)

    mine = Import()
    with after_pages(fake, fail):
        mine.resume(service)
    assert mine.told["complete"] is False
    assert mine.told["error"]["type"] == f"urn:ignition-broker:{code}"
    assert 0 < mine.told["rows"] == len(mine.rows) < ROWS
    mine.resume(service)
    mine.assert_is_whole()


def test_a_spent_hour_is_told_with_the_seconds_to_wait(fake, service):
    headers = service.get("/proxy/acme/reporting/deal_stages").headers
    used = int(headers["x-ratelimit-limit"]) - int(headers["x-ratelimit-remaining"])
    mine = Import()
    fake.control("options", requests_per_hour=used + 5)
    try:
        mine.resume(service)
    finally:
        fake.control("options", requests_per_hour=fake.options.requests_per_hour)
    error = mine.told["error"]
    assert (mine.told["pages"], mine.told["rows"]) == (5, len(mine.rows))
    assert error["type"] == "urn:ignition-broker:page-refused"
    assert error["upstream_status"] == 429
    assert 30 < error["retry_after"] <= 3600
    mine.resume(service)
    mine.assert_is_whole()


def test_the_callers_side_in_the_documentation_gets_every_row_once(fake, service, monkeypatch):
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE_ON_PAGING.read_text(), re.DOTALL | re.M)
    documented: dict[str, Any] = {}
    exec(code, documented)  # our own page's
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    path = "/proxy/acme/reporting/proposals"
    rows = documented["rows"](service, path, limit=PAGE)
    fake.fail("api", 3, delay_seconds=0.01)
    fake.fail("api", 1, status=500)
    slugs = [row["slug"] for row in rows]
    assert slugs == [f"prop_{number:06}" for number in range(1, ROWS + 1)]
    assert pauses == [10]
    fake.fail("api", 1, status=200, body="[]", content_type="application/json")
    with pytest.raises(ValueError, match="no pages"):
        next(documented["rows"](service, path))


def test_a_token_that_ends_midway_is_renewed_once(fake, service):
    mine, refreshes = Import(), fake.counters()["refreshes"]
    with after_pages(fake, lambda: fake.control("expire")):
        mine.resume(service)
        assert fake.counters()["refreshes"] == refreshes + 1
    mine.assert_is_whole()


def test_a_list_of_one_page_and_a_filter_that_leaves_nothing(service):
    stages = service.get("/proxy/acme/reporting/deal_stages", headers=ALL).text.splitlines()
    assert [json.loads(line)["slug"] for line in stages[:-1]] == [
        f"stage_{number:06}" for number in range(1, 7)
    ]
    nothing = service.get(f"{LIST}&updated_from=2030-01-01T00:00:00Z", headers=ALL)
    assert nothing.text == '{"broker":{"complete":true,"cursor":null,"rows":0,"pages":1}}\n'


@pytest.mark.parametrize(
    ("method", "value"), [("POST", "all"), ("HEAD", "all"), ("GET", "yes"), ("GET", "checkpoints")]
)
def test_what_cannot_be_paged_is_refused_by_name(fake, service, method, value):
    asked = fake.counters()["api_requests"]
    answer = service.request(method, LIST, headers={"Broker-Paginate": value})
    assert answer.status_code == 400
    assert answer.headers["broker-error"] == "invalid-request"
    assert method == "HEAD" or answer.json()["detail"].startswith("Broker-Paginate: ")
    assert fake.counters()["api_requests"] == asked


@pytest.mark.parametrize(
    "path", ["no-such-list", "proposals?limit=9999", "proposals?cursor=forged"]
)
def test_a_refusal_of_the_first_page_comes_as_it_is(service, path):
    plain = service.get(f"/proxy/acme/reporting/{path}")
    asked = service.get(f"/proxy/acme/reporting/{path}", headers=ALL)
    assert plain.status_code in (400, 404, 422)
    assert (asked.status_code, asked.content) == (plain.status_code, plain.content)
    assert "broker-error" not in asked.headers


def test_a_key_that_is_revoked_ends_its_streams(broker, fake):
    key = broker.make_key("leaving", ["proxy"], ["acme"])
    mine = Import()
    with (
        broker.client() as admin,
        broker.client(key) as leaving,
        after_pages(fake, lambda: admin.delete("/admin/api-keys/leaving")),
    ):
        mine.resume(leaving)
    assert 0 < mine.told["rows"] == len(mine.rows) < ROWS
    assert mine.told["error"]["type"] == "urn:ignition-broker:unauthenticated"
