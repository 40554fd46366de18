"""`keys rotate` of many grants while tokens are read: rows a second, and reads that failed.

python -m benchmarks.cases.rotate --grants 100000
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import subprocess
import time
from dataclasses import dataclass

import httpx
from cryptography.fernet import Fernet

from benchmarks.processes import LOAD_CORE, PYTHON, pinned
from benchmarks.stand import Broker, Stand, stand

READS_PER_SECOND = 200


@dataclass(frozen=True, slots=True)
class Rotated:
    """``read_p99`` in seconds: of reads of tenants at random, most of them from Postgres."""

    grants: int
    seconds: float
    per_second: float
    reads: int
    failed: int
    read_p50: float
    read_p99: float


def measure(stand_: Stand, *, grants: int = 100_000) -> Rotated:
    tenants = [f"rotated-{number:06}" for number in range(grants)]
    stand_.store_grants(tenants)
    new = Fernet.generate_key().decode()
    keys = f"{new},{stand_.encryption_key}"
    with stand_.broker(BROKER_ENCRYPTION_KEYS=keys) as broker:
        return asyncio.run(_rotate(stand_, broker, tenants, keys))


async def _rotate(stand_: Stand, broker: Broker, tenants: list[str], keys: str) -> Rotated:
    latencies: list[float] = []
    failures: list[str] = []
    limits = httpx.Limits(max_connections=50)
    async with httpx.AsyncClient(base_url=broker.url, timeout=20, limits=limits) as client:

        async def read(tenant: str) -> None:
            began = time.monotonic()
            try:
                answer = await client.get(f"/token/{tenant}", headers=stand_.authorization)
            except httpx.HTTPError as error:
                failures.append(repr(error))
                return
            latencies.append(time.monotonic() - began)
            if answer.status_code != 200:
                failures.append(answer.text)

        async def reading() -> None:
            async with asyncio.TaskGroup() as group:
                while not rotating.done():
                    group.create_task(read(random.choice(tenants)))
                    await asyncio.sleep(1 / READS_PER_SECOND)

        rotating = asyncio.create_task(asyncio.to_thread(_command, stand_, keys))
        await reading()
        seconds, rotated, per_second = await rotating
    for failure in failures[:5]:
        print(failure)
    latencies.sort()
    return Rotated(
        rotated,
        seconds,
        per_second,
        len(latencies),
        len(failures),
        latencies[len(latencies) // 2],
        latencies[len(latencies) * 99 // 100],
    )


def _command(stand_: Stand, keys: str) -> tuple[float, int, float]:
    began = time.monotonic()
    done = subprocess.run(
        pinned(LOAD_CORE, [PYTHON, "-m", "ignition_broker", "keys", "rotate"]),
        env={**os.environ, "DATABASE_URL": stand_.database_url, "BROKER_ENCRYPTION_KEYS": keys},
        cwd=stand_.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.match(r"(\d+) grants re-encrypted with key \w+, (\d+) a second", done.stdout)
    assert found is not None, done.stdout
    return time.monotonic() - began, int(found[1]), float(found[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grants", type=int, default=100_000)
    with stand() as stand_:
        print(measure(stand_, grants=parser.parse_args().grants))


if __name__ == "__main__":
    main()
