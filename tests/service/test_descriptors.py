"""A process that has run out of file descriptors says so by name."""

from __future__ import annotations

import contextlib
import resource
import time
from pathlib import Path

import httpx
from tests.conftest import sql, wait_until


@contextlib.contextmanager
def no_descriptor_left(pid: int):
    """None of the open ones is closed, and no other can be opened."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def gauges(client: httpx.Client) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    pairs = (line.split() for line in lines if line.startswith("process_"))
    return {name: float(value) for name, value in pairs}


def test_running_out_of_descriptors_has_a_name_and_a_metric(broker, fake, postgres, database_url):
    broker.connect("acme")
    pid = broker.process.pid
    with broker.client() as admin:
        seen = gauges(admin)
        opened = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        assert abs(seen["process_open_fds"] - opened) <= 2
        assert seen["process_max_fds"] == resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
        with no_descriptor_left(pid):
            assert gauges(admin) == {"process_open_fds": 3, "process_max_fds": 3}
            fake.hang_up()
            fake.listen()
            ended = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name LIKE 'ignition-broker%' AND datname = current_database()"
            )
            answer = admin.post("/token/acme/refresh")
            assert answer.status_code == 503, answer.text
            assert "too many open files (EMFILE)" in answer.json()["detail"]
            sql(postgres, database_url, ended)
            wait_until(
                lambda: "too many open files (EMFILE)" in admin.get("/readyz").text, 5, "its name"
            )
            wait_until(
                lambda: any(
                    '"listen_failed"' in line and "EMFILE" in line
                    for line in broker.log_text().splitlines()
                ),
                5,
                "its name in the log",
            )
        wait_until(lambda: admin.get("/readyz").status_code == 200, 10, "ready again")
        deadline = time.monotonic() + 20
        while admin.post("/token/acme/refresh").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.5)
    assert fake.counters()["refresh_token_reuses"] == 0
