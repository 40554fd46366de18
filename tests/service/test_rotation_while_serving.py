"""`keys rotate` while four replicas renew the same grants as fast as they can."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import subprocess
import sys
import threading
import time

import httpx
import pytest
from cryptography.fernet import Fernet
from tests.chaos.cluster import cluster
from tests.conftest import sql

from ignition_broker.broker.encryption_keys.rotation import rotate_grants
from ignition_broker.cipher import Cipher, fingerprint_of
from ignition_broker.storage.database import Database

BUSY = [f"busy-{number}" for number in range(12)]
IDLE = 3_000


@pytest.fixture(scope="module")
def four():
    with cluster(4, lifetime_seconds=3600, provider_timeout_seconds=5) as made:
        for tenant in BUSY:
            made.connect(tenant)
        fill(made, made.replicas[0].settings["BROKER_ENCRYPTION_KEYS"])
        yield made


def restart_with(four, keys: str) -> None:
    def restart(replica) -> None:
        replica.settings["BROKER_ENCRYPTION_KEYS"] = keys
        assert replica.stop() == 0
        replica.start()

    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(restart, four.replicas))


def fill(four, key: str) -> None:
    """Grants that nobody asks for, so that a rotation takes its time."""
    cipher = Cipher([key])
    run = "INSERT INTO tenants SELECT 'a' || n FROM generate_series(1, {count}) n"
    sql(four.postgres, four.database_url, run.format(count=IDLE))
    rows = ", ".join(
        f"('a{number}', 'connected', 1, "
        f"'\\x{cipher.encrypt(f'a{number}', 'access_token', 'x' * 40).hex()}', "
        f"'\\x{cipher.encrypt(f'a{number}', 'refresh_token', 'x' * 40).hex()}', NULL)"
        for number in range(1, IDLE + 1)
    )
    statement = (
        "INSERT INTO grants (tenant_id, status, version, access_token, refresh_token, "
        f"next_refresh_at) VALUES {rows}"
    )
    subprocess.run(
        [four.postgres.binary("psql"), four.database_url.replace("+asyncpg", ""), "-q"],
        input=statement,
        text=True,
        check=True,
    )


def renewals(four, stop: threading.Event, failures: list[str]) -> None:
    """Each replica in turn, each tenant in turn, and a read of each beside it."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(replica.client()) for replica in four.replicas]
        number = 0
        while not stop.is_set():
            tenant, client = BUSY[number % len(BUSY)], clients[number % len(clients)]
            number += 1
            answers = client.post(f"/token/{tenant}/refresh"), client.get(f"/token/{tenant}")
            failures.extend(answer.text for answer in answers if answer.status_code != 200)


def test_no_token_is_lost_or_overwritten_and_every_row_ends_under_the_new_key(four):
    key = four.replicas[0].settings["BROKER_ENCRYPTION_KEYS"]
    new = Fernet.generate_key().decode()
    restart_with(four, f"{new},{key}")
    stop, failures = threading.Event(), []
    before = four.counters()["refreshes"]
    threads = [threading.Thread(target=renewals, args=(four, stop, failures)) for _ in range(3)]
    for thread in threads:
        thread.start()
    ended = four.replicas[0].command("keys", "rotate")
    stop.set()
    for thread in threads:
        thread.join()
    assert ended.returncode == 0, ended.stderr
    held = json.loads(four.replicas[0].command("keys", "status", "--json").stdout)
    counts = {each["fingerprint"]: each["grants"] for each in held["keys"]}
    assert counts == {fingerprint_of(new): IDLE + len(BUSY), fingerprint_of(key): 0}
    assert failures == []
    assert four.counters()["refreshes"] - before > 50
    restart_with(four, new)
    with four.replicas[1].client() as admin:
        for tenant in BUSY:
            # The stored token is Ignition's newest: an older one would revoke the grant.
            assert admin.post(f"/token/{tenant}/refresh").status_code == 200
    assert four.counters()["refresh_token_reuses"] == 0
    assert four.errors_logged() == []


class Interrupted(Cipher):
    """Between reading a busy tenant's row and writing it, a replica renews that tenant's grant."""

    def __init__(self, keys: list[str], four) -> None:
        super().__init__(keys)
        self._four = four
        self.interrupted: list[str] = []

    def encrypt(self, tenant: str, column: str, value: str) -> bytes:
        if tenant in BUSY and tenant not in self.interrupted:
            replica = self._four.replicas[len(self.interrupted) % len(self._four.replicas)]
            self.interrupted.append(tenant)
            with replica.client() as admin:
                assert admin.post(f"/token/{tenant}/refresh").status_code == 200
        return super().encrypt(tenant, column, value)


async def test_a_refresh_that_comes_between_reading_and_writing_wins(four):
    key = four.replicas[0].settings["BROKER_ENCRYPTION_KEYS"]
    new = Fernet.generate_key().decode()
    # The replicas write with the old key still, so that what they wrote has to be rotated too.
    restart_with(four, f"{key},{new}")
    cipher = Interrupted([new, key], four)
    database = Database(four.database_url)
    try:
        steps = [progress async for progress in rotate_grants(database, cipher)]
    finally:
        await database.aclose()
    assert len(cipher.interrupted) == len(BUSY)
    assert sum(step.left for step in steps) >= len(BUSY)
    assert (steps[-1].left, steps[-1].unreadable) == (0, 0)
    under_new = f"SELECT count(*) FROM grants WHERE key_fingerprint = '{fingerprint_of(new)}'"
    assert int(sql(four.postgres, four.database_url, under_new)) == IDLE + len(BUSY)
    with four.replicas[0].client() as admin:
        for tenant in BUSY:
            assert admin.post(f"/token/{tenant}/refresh").status_code == 200
    assert four.counters()["refresh_token_reuses"] == 0


def test_a_rotation_that_was_killed_is_taken_up_where_it_stood(four):
    keys = four.replicas[0].settings["BROKER_ENCRYPTION_KEYS"]
    new = Fernet.generate_key().decode()
    restart_with(four, f"{new},{keys}")
    replica = four.replicas[0]
    rotating = subprocess.Popen(
        [sys.executable, "-m", "ignition_broker", "keys", "rotate"],
        env=replica.environment,
        cwd=replica.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    count = f"SELECT count(*) FROM grants WHERE key_fingerprint = '{fingerprint_of(new)}'"
    deadline = time.monotonic() + 30
    while (done := int(sql(four.postgres, four.database_url, count))) == 0:
        assert time.monotonic() < deadline
    rotating.kill()
    rotating.wait()
    done = int(sql(four.postgres, four.database_url, count))
    assert 0 < done < IDLE
    ended = replica.command("keys", "rotate")
    assert ended.stdout.startswith(f"{IDLE + len(BUSY) - done} grants re-encrypted")
    assert httpx.get(f"{replica.url}/readyz").status_code == 200
