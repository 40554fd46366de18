"""Tokens and proxied calls at 70 % of what the broker can do, for minutes: latency, errors, memory.

python -m benchmarks.cases.mixed --seconds 600
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time
from dataclasses import dataclass

from benchmarks import nginx
from benchmarks.load import wrk
from benchmarks.processes import LOAD_CORE, ROOT, pinned, resident_bytes
from benchmarks.stand import Broker, Stand, stand

CONNECTIONS = 256
SHARE_OF_PEAK = 0.7
TRIALS = 3
TOKENS_FOR_EACH_CALL = 3
TENANTS = [f"mixed-{number}" for number in range(200)]
SCRIPT = ROOT / "benchmarks" / "mixed.lua"


@dataclass(frozen=True, slots=True)
class Mixed:
    """``memory``: (second, bytes) each five seconds; latencies in seconds."""

    seconds: float
    peak_per_second: float
    per_second: float
    failed: int
    p50: float
    p99: float
    p999: float
    memory: list[tuple[float, int]]

    @property
    def grew_after_the_first_minute(self) -> int:
        """Bytes, from the median of the first quarter of what came after it to that of the last."""
        settled = [size for second, size in self.memory if second >= 60]
        part = len(settled) // 4
        if part == 0:
            return 0
        return int(statistics.median(settled[-part:]) - statistics.median(settled[:part]))


def measure(stand_: Stand, *, seconds: float = 600) -> Mixed:
    stand_.store_grants(TENANTS)
    with (
        nginx.api(stand_.folder) as api,
        stand_.broker(IGNITION_API_URL=f"http://127.0.0.1:{api}") as broker,
    ):
        tokens, calls = (
            wrk(f"{broker.url}{path}", seconds=4, headers=stand_.authorization).per_second
            for path in ("/token/acme", "/proxy/acme/1k.json")
        )
        # A request of the mix costs the mean of what its kinds cost.
        kinds = TOKENS_FOR_EACH_CALL + 1
        peak = kinds / (TOKENS_FOR_EACH_CALL / tokens + 1 / calls)
        # wrk waits between an answer and the next request: what both take besides is found out.
        # It grows with the load, hence more than one trial.
        cycle_ms = 1000 * CONNECTIONS / (SHARE_OF_PEAK * peak)
        delay_ms = cycle_ms
        for _ in range(TRIALS):
            trial = _loaded(stand_, broker, peak, 5, delay_ms=round(delay_ms))
            delay_ms += cycle_ms - 1000 * CONNECTIONS / trial.per_second
        return _loaded(stand_, broker, peak, seconds, delay_ms=round(delay_ms))


def _loaded(stand_: Stand, broker: Broker, peak: float, seconds: float, *, delay_ms: int) -> Mixed:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "--timeout", "20s"]
    command += ["-H", f"Authorization: Bearer {stand_.key}", "-s", str(SCRIPT)]
    command += [broker.url, "--", str(delay_ms)]
    began = time.monotonic()
    load = subprocess.Popen(pinned(LOAD_CORE, command), stdout=subprocess.PIPE, text=True)
    memory = []
    while load.poll() is None:
        memory.append((time.monotonic() - began, resident_bytes(broker.process)))
        time.sleep(5)
    assert load.stdout is not None
    line = next(line for line in load.stdout if line.startswith("mixed "))
    answered, failed, p50, p99, p999 = (float(word) for word in line.split()[1:])
    return Mixed(seconds, peak, answered / seconds, int(failed), p50, p99, p999, memory)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    seconds = parser.parse_args().seconds
    with stand() as standing:
        mixed = measure(standing, seconds=seconds)
    print(
        f"{mixed.per_second:.0f}/s, {mixed.per_second / mixed.peak_per_second:.0%} of the peak; "
        f"{mixed.failed} failed; p50 {mixed.p50 * 1e3:.2f} ms, p99 {mixed.p99 * 1e3:.2f} ms, "
        f"p99.9 {mixed.p999 * 1e3:.2f} ms; grew by "
        f"{mixed.grew_after_the_first_minute / 1e6:.2f} MB "
        "after the first minute"
    )
    for second, size in mixed.memory:
        print(f"  {second:5.0f} s  {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
