"""The faults that the run injects, drawn from a seed, and when each happened."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import time
from dataclasses import dataclass, field

import httpx

from ignition_broker.broker.grants.leases import LEASE_SECONDS

PROVIDER_TIMEOUT_SECONDS = 2.0
SLOW_SECONDS = PROVIDER_TIMEOUT_SECONDS / 2
LATE_SECONDS = (PROVIDER_TIMEOUT_SECONDS * 1.5, LEASE_SECONDS + 3)
"""Beyond what callers wait, and beyond what a lease lasts that nobody extends."""
DRIP_SECONDS = 0.025
"""Between two bytes; some 300 of them take longer than callers wait, or a lease lasts."""


@dataclass
class Window:
    """From when to when something was wrong, on the wall clock; with which replica, if with one."""

    kind: str
    began: float
    ended: float = float("inf")
    replica: int | None = None


@dataclass
class Faults:
    """Owns the replicas' lives. ``replicas`` are `tests.conftest.Broker`s."""

    seed: int
    replicas: list
    postgres: object
    fake_url: str
    database_url: str
    windows: list[Window] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._busy: set[int] = set()
        self._postgres_lock = asyncio.Lock()

    async def run(self, until: float) -> None:
        """Begins faults until the wall clock says so, several at once; waits for their ends."""
        kinds = [
            (self.kill, 3),
            (self.freeze, 2),
            (self.restart_postgres, 1),
            (self.break_listen, 2),
            (self.provider_error, 3),
            (self.provider_late, 2),
            (self.provider_drip, 2),
            (self.provider_gateway, 2),
            (self.provider_drop, 2),
        ]
        weighted = [kind for kind, weight in kinds for _ in range(weight)]
        under_way: set[asyncio.Task[None]] = set()
        while time.time() < until:
            fault = self._random.choice(weighted)
            self.counts[fault.__name__] = self.counts.get(fault.__name__, 0) + 1
            under_way.add(asyncio.create_task(fault()))
            await asyncio.sleep(self._random.uniform(0.5, 4.0))
        await asyncio.gather(*under_way)

    async def watch(self, until: float) -> None:
        """Notes when the provider was slower than it was told to be, for want of a processor: how
        far the run's figures can be believed."""
        async with httpx.AsyncClient(timeout=30) as client:
            while time.time() < until:
                began = time.time()
                await client.get(f"{self.fake_url}/healthz")
                if time.time() - began > SLOW_SECONDS:
                    self.windows.append(Window("slow", began, time.time()))
                await asyncio.sleep(0.1)

    def active(self, kind: str, began: float, ended: float) -> bool:
        return any(
            window.kind == kind and window.began <= ended and window.ended >= began
            for window in self.windows
        )

    def _choose_replica(self):
        free = [index for index in range(len(self.replicas)) if index not in self._busy]
        # At least one replica stays up, so that callers have one to ask.
        return self._random.choice(free) if len(free) > 1 else None

    async def kill(self) -> None:
        index = self._choose_replica()
        if index is None:
            return
        self._busy.add(index)
        replica = self.replicas[index]
        window = Window("kill", time.time(), replica=index)
        self.windows.append(window)
        replica.process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(replica.process.wait)
        await asyncio.sleep(self._random.uniform(0.1, 2.0))
        while True:
            try:
                await asyncio.to_thread(replica.start)
                break
            except BaseException:  # pytest.fail while Postgres restarts
                if replica.process.poll() is None:
                    replica.process.kill()
                    replica.process.wait()
        window.ended = time.time()
        self._busy.discard(index)

    async def freeze(self) -> None:
        index = self._choose_replica()
        if index is None:
            return
        self._busy.add(index)
        process = self.replicas[index].process
        window = Window("freeze", time.time(), replica=index)
        self.windows.append(window)
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(LEASE_SECONDS + self._random.uniform(0.5, 2.0))
        process.send_signal(signal.SIGCONT)
        window.ended = time.time()
        self._busy.discard(index)

    async def restart_postgres(self) -> None:
        async with self._postgres_lock:
            window = Window("postgres", time.time())
            self.windows.append(window)
            await asyncio.to_thread(self.postgres.restart, "immediate")
            window.ended = time.time()
            await asyncio.sleep(8)

    async def break_listen(self) -> None:
        async with self._postgres_lock:
            statement = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'ignition-broker listen'"
            )
            url = self.database_url.replace("+asyncpg", "")
            await asyncio.to_thread(
                subprocess.run,
                [self.postgres.binary("psql"), url, "-c", statement],
                check=False,
                capture_output=True,
            )

    async def _provider(self, **fault) -> None:
        window = Window("provider", time.time())
        self.windows.append(window)
        async with httpx.AsyncClient() as client:
            await client.post(
                f"{self.fake_url}/control/fail",
                json={"endpoint": "token", "count": self._random.randint(1, 8), **fault},
            )
        await asyncio.sleep(1.0)
        window.ended = time.time()

    async def provider_error(self) -> None:
        """Without having carried it out."""
        status = self._random.choice([500, 502, 503, 429])
        headers = {"Retry-After": "1"} if status == 429 else {}
        await self._provider(status=status, headers=headers)

    async def provider_gateway(self) -> None:
        """Ignition carries it out, and what stands before it answers with something else."""
        await self._provider(status=self._random.choice([500, 502, 504]), carry_out=True)

    async def provider_late(self) -> None:
        await self._provider(delay_seconds=self._random.uniform(*LATE_SECONDS))

    async def provider_drip(self) -> None:
        await self._provider(drip_seconds=DRIP_SECONDS)

    async def provider_drop(self) -> None:
        await self._provider(drop=self._random.choice(["before", "after"]))
