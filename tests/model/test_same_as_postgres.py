"""The model's statements are held to what Postgres makes of the real ones."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ignition_broker.model import AuditEvent, Lease
from ignition_broker.storage import grants
from ignition_broker.storage.engine import Database
from tests.conftest import sql, wait_until
from tests.model.postgres import PlainCipher, Rows, SimulatedConnection
from tests.model.rows import GrantRows

SEQUENCES = 60
STEPS = 25
LEASE_SECONDS = 10.0
LIFETIME_SECONDS = 40.0
MOMENTS = [
    "issued_at",
    "expires_at",
    "lease_until",
    "refresh_started_at",
    "next_refresh_at",
    "used_at",
]
HAIR_SECONDS = 1.5


class Both:
    """Each step is done to the rows in memory and to Postgres; what they say must be the same."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self.tenant = tenant
        self.table = GrantRows(tenants={tenant})
        self.now = 1_700_000_000.0
        self.leases: list[Lease] = []

    async def do(self, work: Any) -> tuple[Any, Any]:
        async def carry_out(statement: Any, given: dict[str, Any]) -> Any:
            return Rows(self.table.carry_out(statement, given, self.now))

        return await work(SimulatedConnection(carry_out)), await self._database.single(work)

    async def pass_time(self, postgres: Any, url: str, seconds: float) -> None:
        self.now += seconds
        moved = ", ".join(f"{name} = {name} - interval '{seconds} seconds'" for name in MOMENTS)
        sql(postgres, url, f"UPDATE grants SET {moved} WHERE tenant_id = '{self.tenant}'")

    async def check(self) -> None:
        cipher = PlainCipher()
        ours, theirs = await self.do(lambda c: grants.read(c, cipher, self.tenant, asked_at=0.0))
        for name in ("status", "version", "lease_is_held", "is_uncertain", "failures"):
            assert getattr(ours, name) == getattr(theirs, name), name
        assert ours.last_error == theirs.last_error
        assert ours.retry_in_seconds == pytest.approx(theirs.retry_in_seconds, abs=HAIR_SECONDS)
        assert (ours.issued is None) == (theirs.issued is None)
        if ours.issued is not None:
            assert ours.issued.access_token == theirs.issued.access_token
            assert ours.issued.dies_at == pytest.approx(theirs.issued.dies_at, abs=HAIR_SECONDS)
            assert ours.issued.lifetime_seconds == pytest.approx(theirs.issued.lifetime_seconds)


def event(tenant: str) -> AuditEvent:
    return AuditEvent("model", "done", "model", tenant)


def sealed(chance: random.Random, tenant: str) -> grants.SealedTokens:
    number = chance.randrange(10**9)
    return grants.SealedTokens(
        access_token=f"{number} {tenant} access_token a{number}".encode(),
        refresh_token=f"{number} {tenant} refresh_token r{number}".encode(),
        token_type="Bearer",
        scope="read",
        lifetime_seconds=LIFETIME_SECONDS,
    )


def essence(lease: Lease | None) -> Any:
    if lease is None:
        return None
    return (lease.version, lease.owner, lease.refresh_token, lease.was_uncertain, lease.failures)


async def step(both: Both, chance: random.Random) -> None:
    tenant, cipher = both.tenant, PlainCipher()
    tokens, now = sealed(chance, tenant), chance.uniform(0, 2)
    plan = grants.Schedule(30.0, chance.choice([0.0, 600.0]))
    holder = {"owner": chance.choice(["r1", "r2"]), "lease_seconds": LEASE_SECONDS}
    times = {"asked_at": 0.0, "use_before": 1.0}
    kind = chance.choice(
        ["connect", "claim", "claim", "claim", "due", "use", "use", "use", "leave"]
    )
    if kind == "connect":
        await both.do(
            lambda c: grants.store_connected(
                c, tenant, tokens, plan, event(tenant), age_seconds=now
            )
        )
    elif kind == "claim":
        row = both.table.rows.get(tenant)
        version = (row.version if row else 1) - chance.choice([0, 0, 0, 1])
        ours, theirs = await both.do(
            lambda c: grants.claim(c, cipher, tenant=tenant, version=version, **holder, **times)
        )
        assert essence(ours) == essence(theirs)
        both.leases += [ours] if ours is not None else []
    elif kind == "due":
        found = await both.do(lambda c: grants.claim_due(c, cipher, limit=5, **holder, **times))
        ours, theirs = found
        assert list(map(essence, ours)) == [essence(x) for x in theirs if x.tenant == tenant]
        both.leases += ours
    elif kind == "leave":
        leave = chance.choice(
            [
                lambda c: grants.disconnect(c, cipher, tenant, event(tenant)),
                lambda c: grants.note_use(c, [tenant], lead_seconds=5.0),
                lambda c: grants.is_disconnected(c, tenant),
            ]
        )
        ours, theirs = await both.do(leave)
        assert ours == theirs
    elif both.leases:
        lease = chance.choice(both.leases)
        back_off = chance.choice([0.0, 7.0])
        use = chance.choice(
            [
                lambda c: grants.store_refreshed(
                    c, lease, tokens, plan, event(tenant), age_seconds=now
                ),
                lambda c: grants.find_stored(c, lease, tokens),
                lambda c: grants.record_refusal(c, lease, "no", event(tenant)),
                lambda c: grants.record_not_used(c, lease, "busy", back_off, event(tenant)),
                lambda c: grants.record_answer_lost(c, lease, "lost", back_off, event(tenant)),
                lambda c: grants.give_back(c, lease),
            ]
        )
        ours, theirs = await both.do(use)
        if isinstance(ours, grants.Stored):
            ours, theirs = ours.version, theirs and theirs.version
        assert ours == theirs


async def test_the_models_statements_do_what_postgres_does(postgres, database_url):
    started = "SELECT now() - pg_postmaster_start_time() > interval '4 seconds'"
    wait_until(lambda: sql(postgres, database_url, started) == "t", 10)
    database = Database(database_url, pool_size=1)
    sql(postgres, database_url, "TRUNCATE tenants CASCADE")
    steps = 0
    try:
        for seed in range(SEQUENCES):
            chance = random.Random(seed)
            both = Both(database, f"tenant-{seed}")
            # What is due elsewhere is of no concern to this sequence.
            sql(
                postgres,
                database_url,
                "UPDATE grants SET next_refresh_at = NULL; "
                f"INSERT INTO tenants (id) VALUES ('{both.tenant}')",
            )
            for _ in range(STEPS):
                if chance.random() < 0.3:
                    seconds = chance.choice([3.1, 12.7, 33.3, 61.9])
                    await both.pass_time(postgres, database_url, seconds)
                await step(both, chance)
                await both.check()
                steps += 1
    finally:
        await database.aclose()
    assert steps == SEQUENCES * STEPS
