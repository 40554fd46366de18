"""Callers who ask for tokens all the time and record each answer that breaks a promise."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field

import aiohttp

CALL_TIMEOUT_SECONDS = 8.0
HAIR_SECONDS = 0.5
"""A replica takes a token's age from before it asked Postgres for it, on a machine this busy."""
ROUNDING_SECONDS = 1.1
"""``expires_in`` is given in whole seconds."""


@dataclass(frozen=True)
class Outage:
    """From the first refusal to the next token, on the wall clock."""

    tenant: str
    began: float
    ended: float
    needed_an_admin: bool

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass
class Callers:
    """``known_until``: for each tenant, until when some token that was handed out lives.
    ``outages``: when a tenant's callers got none."""

    seed: int
    urls: list[str]
    key: str
    tenants: list[str]
    lifetime_seconds: float
    faults: object
    known_until: dict[str, float] = field(default_factory=dict)
    answers: int = 0
    by_status: dict[str, int] = field(default_factory=dict)
    too_short: list[str] = field(default_factory=list)
    wrongly_refused: list[str] = field(default_factory=list)
    unmet_since: dict[str, float] = field(default_factory=dict)
    outages: list[Outage] = field(default_factory=list)
    lost_tenants: set[str] = field(default_factory=set)
    refused_for_good: set[str] = field(default_factory=set)

    async def run(self, callers: int, until: float) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_SECONDS)
        headers = {"Authorization": f"Bearer {self.key}"}
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=headers
        ) as session:
            await asyncio.gather(
                *(
                    self._call_on(session, random.Random(self.seed * 1000 + number), until)
                    for number in range(callers)
                )
            )

    async def _call_on(self, session, chance: random.Random, until: float) -> None:
        while time.time() < until:
            tenant = chance.choice(self.tenants)
            min_ttl = chance.choice([0, 1, 2])
            await self._call(session, chance, tenant, min_ttl)
            await asyncio.sleep(chance.uniform(0, 0.3))

    async def _call(self, session, chance: random.Random, tenant: str, min_ttl: int) -> None:
        """One caller's call: a replica that does not answer is passed over for the next."""
        for url in chance.sample(self.urls, len(self.urls)):
            began = time.time()
            known_until = self.known_until.get(tenant, 0.0)
            try:
                async with session.get(f"{url}/token/{tenant}?min_ttl={min_ttl}") as answer:
                    body = await answer.json(content_type=None)
                    status = answer.status
            except (aiohttp.ClientError, TimeoutError, ValueError):
                self._count("no answer")
                continue
            ended = time.time()
            self.answers += 1
            if status == 200:
                self._count("200")
                self._judge_token(tenant, min_ttl, body, began, ended)
            else:
                code = body["type"].rpartition(":")[2]
                self._count(f"{status} {code}")
                self._judge_refusal(tenant, min_ttl, code, began, ended, known_until)
            return
        self._count("nobody answered")

    def _judge_token(self, tenant, min_ttl, body, began, ended) -> None:
        if body["expires_in"] + ROUNDING_SECONDS < min(min_ttl, self.lifetime_seconds):
            self.too_short.append(f"{tenant}: {body['expires_in']} s, asked {min_ttl}")
        # The answer may have been long under way: it was true when the call began, or later.
        until = began + body["expires_in"]
        self.known_until[tenant] = max(until, self.known_until.get(tenant, 0.0))
        since = self.unmet_since.pop(tenant, None)
        if since is not None:
            needed_an_admin = tenant in self.refused_for_good
            self.refused_for_good.discard(tenant)
            self.outages.append(Outage(tenant, since, ended, needed_an_admin))

    def _judge_refusal(self, tenant, min_ttl, code, began, ended, known_until) -> None:
        """``known_until``: as it was when the call began, so that the token lived all along."""
        self.unmet_since.setdefault(tenant, began)
        if code == "reauthorization-required":
            # The provider's ledger says whether the grant ended for a good reason.
            self.lost_tenants.add(tenant)
            self.refused_for_good.add(tenant)
            self.known_until.pop(tenant, None)
            return
        away = code == "unavailable" and self.faults.active("postgres", began - 6, ended)
        if not away and known_until > ended + min_ttl + HAIR_SECONDS:
            left = known_until - ended
            self.wrongly_refused.append(f"{tenant}: {code} with {left:.1f} s left, asked {min_ttl}")

    def _count(self, what: str) -> None:
        self.by_status[what] = self.by_status.get(what, 0) + 1
