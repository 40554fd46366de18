"""From the start of `serve` to its first `ready`, with a migrated database."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import httpx

from benchmarks.processes import free_port
from benchmarks.stand import Stand, stand

STARTS = 5


@dataclass(frozen=True, slots=True)
class Startup:
    """Seconds; the median of `STARTS`, and the longest."""

    ready_seconds: float
    longest_seconds: float


def measure(on: Stand) -> Startup:
    seconds = sorted(_start(on) for _ in range(STARTS))
    return Startup(statistics.median(seconds), seconds[-1])


def _start(on: Stand) -> float:
    port = free_port()
    began = time.monotonic()
    with on.broker(port=port) as broker, httpx.Client() as client:
        while client.get(f"{broker.url}/readyz").status_code != 200:
            time.sleep(0.005)
        return time.monotonic() - began


if __name__ == "__main__":
    with stand() as made:
        print(measure(made))
