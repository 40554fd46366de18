"""What a replica weighs: at rest, and for each tenant whose token it holds."""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks.load import wrk
from benchmarks.processes import resident_bytes
from benchmarks.stand import Broker, Stand, stand

TENANTS = 50_000
ASKING_SECONDS = 60.0
REST_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Memory:
    idle_bytes: int
    bytes_a_tenant: float
    cached_tenants: int


def measure(on: Stand) -> Memory:
    tenants = [f"held-{number:06}" for number in range(TENANTS)]
    on.store_grants(tenants)
    script = on.folder / "each-once.lua"
    script.write_text(EACH_ONCE.format(count=TENANTS))
    with on.broker() as broker:
        broker.get("/readyz", {})
        time.sleep(REST_SECONDS)
        idle = resident_bytes(broker.process)
        # What asking costs in itself (buffers, the pool's connections) is not the tenants'.
        wrk(broker.url + "/token/acme", seconds=2, headers=on.authorization)
        warm = resident_bytes(broker.process)
        deadline = time.monotonic() + ASKING_SECONDS
        while (cached := _cached(broker)) < TENANTS and time.monotonic() < deadline:
            wrk(broker.url, seconds=5, headers=on.authorization, script=script)
        time.sleep(REST_SECONDS)
        full = resident_bytes(broker.process)
    return Memory(idle, (full - warm) / max(1, cached - 1), cached)


def _cached(broker: Broker) -> int:
    metrics = broker.get("/metrics", {}).text
    lines = [line for line in metrics.splitlines() if line.startswith("broker_cached_tokens ")]
    return int(float(lines[0].split()[1]))


EACH_ONCE = """
local number = -1
request = function()
  number = (number + 1) % {count}
  return wrk.format("GET", string.format("/token/held-%06d", number))
end
"""


if __name__ == "__main__":
    with stand() as made:
        print(measure(made))
