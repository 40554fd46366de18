"""`BROKER_OPERATIONS_PORT`: the operators' pages are only on that port."""

from __future__ import annotations

import httpx
import pytest
from tests.conftest import free_port, wait_until

MOVED = ["/metrics", "/docs", "/openapi.json"]


@pytest.fixture(scope="module")
def operations() -> int:
    return free_port()


@pytest.fixture(scope="module")
def more_settings(operations):
    return {"BROKER_OPERATIONS_PORT": str(operations)}


@pytest.mark.parametrize("path", MOVED)
def test_operators_pages_are_on_their_own_port_only(broker, operations, path):
    there = httpx.get(f"http://127.0.0.1:{operations}{path}", follow_redirects=True)
    assert there.status_code == 200
    host = {"Host": f"127.0.0.1:{operations}"}
    for spelling in (path, path.replace("o", "%6f"), path + "?x=1"):
        here = httpx.get(f"{broker.url}{spelling}", headers=host)
        assert here.status_code == 404
        assert here.json()["type"] == "urn:ignition-broker:not-found"
        assert here.json()["request_id"] == here.headers["X-Request-ID"]


@pytest.mark.parametrize(
    "path", ["/", "/login", "/token/acme", "/proxy/acme/v1/me", "/admin/tenants", "/static/x"]
)
def test_nothing_else_is_on_the_operations_port(broker, operations, path):
    headers = {"Authorization": f"Bearer {broker.admin_key}"}
    there = httpx.get(f"http://127.0.0.1:{operations}{path}", headers=headers)
    assert there.status_code == 404
    assert there.json()["type"] == "urn:ignition-broker:not-found"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_on_both_ports(broker, operations, path):
    for port in (broker.port, operations):
        assert httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 200


def test_workers_share_both_ports_and_stop_in_order(broker, operations):
    assert broker.stop() == 0
    broker.arguments = ("--workers", "2")
    broker.start()
    try:
        for _ in range(10):
            assert httpx.get(f"http://127.0.0.1:{operations}/metrics").status_code == 200
            assert httpx.get(f"{broker.url}/metrics").status_code == 404
    finally:
        assert broker.stop() == 0
        broker.arguments = ()
    broker.start()
    wait_until(lambda: httpx.get(f"http://127.0.0.1:{operations}/healthz").is_success)


def test_one_port_for_both_is_a_wrong_setting(broker):
    kept = broker.settings["BROKER_OPERATIONS_PORT"]
    broker.settings["BROKER_OPERATIONS_PORT"] = str(broker.port)
    try:
        ended = broker.command("serve")
    finally:
        broker.settings["BROKER_OPERATIONS_PORT"] = kept
    assert ended.returncode == 2
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("BROKER_OPERATIONS_PORT: must differ from BROKER_PORT")
