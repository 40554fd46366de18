"""10,000 grants that fall due at once, renewed by one replica while it answers other tenants."""

from __future__ import annotations

import concurrent.futures
import contextlib
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import psutil

from benchmarks.load import wrk
from benchmarks.processes import LOAD_CORE, free_port, running, uvicorn_command
from benchmarks.stand import Stand, stand

GRANTS = 10_000
CONNECTIONS = 32
"""Of those who ask for other tenants' tokens meanwhile, as fast as they are answered."""
WINDOWS = 6
WINDOW_SECONDS = 3.0
"""So much load, so often, quiet and meanwhile: medians, since the machine has other guests."""
UNHURRIED = 10
"""The niceness of Postgres and the provider. They share wrk's core, and what wrk waits for them to
leave it would count as the broker's. So wrk is ahead of them besides: the niceness alone leaves it
waiting for as long as their system calls last."""
PATIENCE_SECONDS = 80.0


@dataclass(frozen=True, slots=True)
class Renewal:
    """``used_again``: refresh tokens that the provider saw a second time. ``cpu_seconds``: of the
    replica, for the renewals and the tokens handed out meanwhile."""

    seconds: float
    renewed: int
    used_again: int
    cpu_seconds: float
    quiet: Windows
    meanwhile: Windows

    @property
    def p99_ratio(self) -> float:
        return self.meanwhile.p99 / self.quiet.p99


@dataclass(frozen=True, slots=True)
class Windows:
    """Medians over the windows; ``p99`` in seconds."""

    per_second: float
    p99: float


def measure(on: Stand, **settings: str) -> Renewal:
    on.store_grants([f"due-{number:05}" for number in range(GRANTS)])
    # Its backends are born with it.
    psutil.Process(on.postgres.pid).nice(UNHURRIED)
    with provider(on) as url, on.broker(IGNITION_TOKEN_URL=f"{url}/token", **settings) as broker:
        tokens = broker.url + "/token/acme"

        def ask() -> Windows:
            found = [
                wrk(
                    tokens,
                    seconds=WINDOW_SECONDS,
                    connections=CONNECTIONS,
                    headers=on.authorization,
                    is_first=True,
                )
                for _ in range(WINDOWS)
            ]
            return Windows(
                statistics.median(each.per_second for each in found),
                statistics.median(each.p99 for each in found),
            )

        wrk(tokens, seconds=2, connections=CONNECTIONS, headers=on.authorization)
        quiet = ask()
        cpu = sum(broker.process.cpu_times()[:2])
        with concurrent.futures.ThreadPoolExecutor() as threads:
            asking = threads.submit(ask)
            began = time.monotonic()
            on.statement(
                "UPDATE grants SET next_refresh_at = now() - interval '1 second' "
                "WHERE tenant_id LIKE 'due-%'"
            )
            while (
                renewed := _renewed(on)
            ) < GRANTS and time.monotonic() - began < PATIENCE_SECONDS:
                time.sleep(1)
            seconds = time.monotonic() - began
            cpu = sum(broker.process.cpu_times()[:2]) - cpu
            meanwhile = asking.result()
        again = httpx.get(f"{url}/counts").json()["used_again"]
    return Renewal(seconds, renewed, again, cpu, quiet, meanwhile)


@contextlib.contextmanager
def provider(on: Stand) -> Iterator[str]:
    port = free_port()
    command = uvicorn_command("benchmarks.reference.token_endpoint:app", port)
    with running(command, core=LOAD_CORE, port=port, folder=on.folder) as process:
        process.nice(UNHURRIED)
        yield f"http://127.0.0.1:{port}"


def _renewed(on: Stand) -> int:
    rows = on.statement(
        "SELECT count(*) FROM grants WHERE tenant_id LIKE 'due-%' AND version = 2 "
        "AND status = 'connected'"
    )
    return int(rows[0][0])


if __name__ == "__main__":
    with stand() as made:
        measured = measure(made)
        print(measured, f"p99 {measured.p99_ratio:.2f}x")
