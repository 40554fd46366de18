"""Nothing is lost, and a tenant's events keep their order, while replicas are killed and the
receiver fails, hangs and is killed too."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from standardwebhooks import Webhook
from tests.conftest import free_port, sql, wait_until
from tests.service.webhook_receiver import receiver as started_receiver

from ignition_broker.broker.notifications.signing import new_secret

SECRET = new_secret()
TENANTS = 30
CHANGES = 8
REPLICAS = 3
KILLS = 8

CHANGE = """
    UPDATE grants SET
        status = CASE WHEN {number} % 2 = 0 THEN 'connected' ELSE 'reauthorization_required' END,
        last_error = 'change {number}', connected_at = coalesce(connected_at, now())
    WHERE tenant_id LIKE 'kill%'
"""


@pytest.fixture(scope="module")
def receiver(tmp_path_factory):
    yield from started_receiver(tmp_path_factory.mktemp("receiver"))


@pytest.fixture(scope="module")
def more_settings(receiver):
    return {
        "BROKER_WEBHOOK_URLS": receiver.url,
        "BROKER_WEBHOOK_SECRET": SECRET,
        "BROKER_WEBHOOK_ALLOW": "127.0.0.0/8,::1",
        "BROKER_LOG_LEVEL": "INFO",
    }


@pytest.fixture
def replicas(idle_broker):
    ports = [idle_broker.port, *(free_port() for _ in range(REPLICAS - 1))]
    brokers = [
        replace(
            idle_broker,
            port=port,
            settings={**idle_broker.settings, "BROKER_PORT": str(port)},
            logs=[],
            process=None,
        )
        for port in ports
    ]
    for each in brokers:
        each.start()
    yield brokers
    for each in brokers:
        if each.process is not None and each.process.poll() is None:
            each.stop()


@pytest.mark.timeout(300)
def test_nothing_is_lost_and_the_order_is_kept(replicas, receiver, postgres, database_url, capsys):
    chance = random.Random(20261126)
    run = lambda statement: sql(postgres, database_url, statement)  # noqa: E731
    run(f"INSERT INTO tenants SELECT 'kill' || n FROM generate_series(1, {TENANTS}) n")
    run(
        "INSERT INTO grants (tenant_id, status, version, connected_at) "
        "SELECT id, 'connected', 1, now() FROM tenants WHERE id LIKE 'kill%'"
    )
    receiver.set_mode("mixed")
    number = 0
    for kill in range(KILLS):
        if kill == 3:
            receiver.kill()
        if kill == 4:
            receiver.start()
            receiver.set_mode("mixed")
        victim = replicas[kill % REPLICAS]
        while number < CHANGES * (kill + 1) / KILLS:
            number += 1
            run(CHANGE.format(number=number))
        time.sleep(chance.uniform(1, 4))
        victim.stop(signal.SIGKILL)
        with victim.logs[-1].open("ab") as log:
            # Not waited for: others deliver meanwhile.
            victim.process = subprocess.Popen(
                [sys.executable, "-m", "ignition_broker", "serve"],
                env=victim.environment,
                cwd=victim.folder,
                stderr=log,
                stdout=log,
            )
    receiver.set_mode("ok")
    waiting = "SELECT count(*) FROM webhook_deliveries WHERE state = 'waiting'"
    wait_until(lambda: run(waiting) == "0", 150, what="everything was taken")

    events = run(
        "SELECT event_id, tenant_id, id FROM outbox_events WHERE tenant_id LIKE 'kill%' ORDER BY id"
    )
    written = [tuple(line.split("|")) for line in events.splitlines()]
    assert len(written) == TENANTS * (CHANGES + 1)
    received = receiver.received()
    for entry in received:
        # The library compares the time with now; the whole run is shorter than its tolerance.
        Webhook(SECRET).verify(entry["body"], entry["headers"])
    taken = Counter(each["headers"]["webhook-id"] for each in received if each["status"] == 204)
    lost = [name for name, _tenant, _id in written if name not in taken]
    assert lost == []
    first_taken = defaultdict(list)
    for entry in received:
        if entry["status"] == 204:
            name, data = entry["headers"]["webhook-id"], json.loads(entry["body"])["data"]
            if name not in first_taken[data["tenant"]]:
                first_taken[data["tenant"]].append(name)
    order = defaultdict(list)
    for name, tenant, _id in written:
        order[tenant].append(name)
    assert first_taken == order
    failed = sum(each["status"] != 204 for each in received)
    gone = run("SELECT count(*) FROM webhook_deliveries WHERE state <> 'taken'")
    assert gone == "0"
    with capsys.disabled():
        print(
            f"\nevents {len(written)}, sent {len(received)}, taken {sum(taken.values())}, failed "
            f"{failed}, retried {len(received) - len(written)}, lost {len(lost)}, duplicates "
            f"{sum(taken.values()) - len(taken)}, replicas killed {KILLS}, receiver killed 1"
        )
