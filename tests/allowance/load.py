"""Callers with API keys of their own, each at a steady pace, on all replicas in turn."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import httpx

PATH = "/proxy/acme/reporting/clients?limit=1"


@dataclass
class Key:
    """``wanted``: calls that it wants in a window."""

    name: str
    secret: str
    wanted: float
    weight: int = 1


@dataclass
class Tally:
    """What callers saw. ``served``: by the end of the provider's window, then by key."""

    served: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    left: dict[int, int] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    throttled: Counter[int] = field(default_factory=Counter)
    odd: Counter[str] = field(default_factory=Counter)
    unreachable: int = 0
    began_at: float = field(default_factory=time.monotonic)
    times: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Of each window, when its first and its last call were answered, in seconds of the load."""

    def note(self, key: Key, answer: httpx.Response) -> None:
        reset = int(answer.headers.get("x-ratelimit-reset", 0))
        if answer.status_code == 200:
            left = int(answer.headers["x-ratelimit-remaining"])
            self.served[reset][key.name] += 1
            self.left[reset] = min(left, self.left.get(reset, left))
            now = time.monotonic() - self.began_at
            self.times[reset] = (self.times.get(reset, (now, now))[0], now)
        elif answer.status_code == 429 and answer.headers.get("broker-error"):
            assert answer.headers["broker-error"] == "allowance-spent", answer.text
            assert int(answer.headers["retry-after"]) >= 1
            self.refused[key.name] += 1
        elif answer.status_code == 429:
            self.throttled[reset] += 1
        else:
            self.odd[f"{answer.status_code} {answer.text[:200]}"] += 1


class Load:
    """Calls from now on until `stop`, each key so often in ``window_seconds`` as it wants."""

    def __init__(self, urls: list[str], keys: list[Key], window_seconds: float) -> None:
        self.tally = Tally()
        self._urls = urls
        self._turns = itertools.count()
        self._keys = keys
        self._window_seconds = window_seconds
        self._stopped = asyncio.Event()
        self._gone: set[str] = set()

    async def run(self) -> None:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(timeout=30, limits=limits) as client:
            paces = [self._pace(client, number, key) for number, key in enumerate(self._keys)]
            await asyncio.gather(*paces)

    def stop(self) -> None:
        self._stopped.set()

    async def _pace(self, client: httpx.AsyncClient, number: int, key: Key) -> None:
        gap = self._window_seconds / key.wanted
        due = time.monotonic() + gap * number / len(self._keys)
        calls: set[asyncio.Task[None]] = set()
        while not self._stopped.is_set():
            await asyncio.sleep(max(due - time.monotonic(), 0))
            due += gap
            task = asyncio.create_task(self._call(client, key))
            calls.add(task)
            task.add_done_callback(calls.discard)
        await asyncio.gather(*calls)

    async def _call(self, client: httpx.AsyncClient, key: Key) -> None:
        bearer = {"Authorization": f"Bearer {key.secret}"}
        # As behind a load balancer: whoever is gone is not asked.
        for _ in self._urls:
            url = self._urls[next(self._turns) % len(self._urls)]
            if url in self._gone:
                continue
            try:
                answer = await client.get(url + PATH, headers=bearer)
            except httpx.TransportError:
                self.tally.unreachable += 1
                self._gone.add(url)
                continue
            self.tally.note(key, answer)
            return
