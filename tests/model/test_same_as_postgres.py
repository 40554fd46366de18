"""The model's statements do the same as the real ones do in Postgres."""

from __future__ import annotations

import random
from collections import Counter
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import text

from ignition_broker.model import AuditEvent, Lease
from ignition_broker.storage import grants, leases, new_tokens, refresh_failures, restoring, tenants
from ignition_broker.storage.database import Database
from ignition_broker.storage.sealed_tokens import Schedule, SealedTokens, Stored
from tests.conftest import sql, wait_until
from tests.model.postgres import PlainCipher, SimulatedConnection
from tests.model.rows import GrantRows
from tests.model.statements import carry_out

SEQUENCES = 60
STEPS = 30
LEASE_SECONDS = 10.0
LIFETIME_SECONDS = 20.0
MOMENTS = [
    "issued_at",
    "expires_at",
    "lease_until",
    "refresh_started_at",
    "next_refresh_at",
    "used_at",
    "refreshed_at",
]
HAIR_SECONDS = 0.5
SAME = ("status", "version", "lease_is_held", "is_uncertain", "failures", "early_renewals")
NOW = text("SELECT extract(epoch FROM clock_timestamp())::float8")
BACK = ", ".join(f"{name} = {name} - make_interval(secs => :passed)" for name in MOMENTS)
TIME_PASSES = text(f"UPDATE grants SET {BACK} WHERE tenant_id = :tenant")
AUDIT = text("SELECT action, outcome FROM audit_events WHERE tenant_id = :tenant ORDER BY id")


class Both:
    """Each step is done to the rows in memory and to Postgres; what they say must be the same.

    The model's clock is Postgres' own, so that a slow machine changes nothing.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._passed = 0.0
        self.tenant = tenant
        self.table = GrantRows(tenants={tenant})
        self.leases: list[tuple[Lease, Lease]] = []

    async def do(self, work: Any) -> tuple[Any, Any]:
        now = await self._database.single(lambda c: c.scalar(NOW)) + self._passed

        async def in_memory(statement: Any, given: dict[str, Any]) -> Any:
            return carry_out(self.table, statement, given, now)

        return await work(SimulatedConnection(in_memory)), await self._database.single(work)

    async def pass_time(self, seconds: float) -> None:
        self._passed += seconds
        given = {"passed": seconds, "tenant": self.tenant}
        await self._database.single(lambda c: c.execute(TIME_PASSES, given))

    async def check_audit(self) -> None:
        given = {"tenant": self.tenant}
        rows = await self._database.single(lambda c: c.execute(AUDIT, given))
        assert self.table.audit == [tuple(row) for row in rows]

    async def check(self) -> None:
        cipher = PlainCipher()
        ours, theirs = await self.do(lambda c: grants.read(c, cipher, self.tenant, asked_at=0.0))
        for name in (
            "status",
            "version",
            "lease_is_held",
            "is_uncertain",
            "failures",
            "early_renewals",
        ):
            assert getattr(ours, name) == getattr(theirs, name), name
        assert ours.last_error == theirs.last_error
        ago = theirs.refreshed_seconds_ago
        assert ours.refreshed_seconds_ago == (
            None if ago is None else pytest.approx(ago, abs=HAIR_SECONDS)
        )
        assert ours.retry_in_seconds == pytest.approx(theirs.retry_in_seconds, abs=HAIR_SECONDS)
        assert (ours.issued is None) == (theirs.issued is None)
        if ours.issued is not None:
            assert ours.issued.access_token == theirs.issued.access_token
            assert ours.issued.dies_at == pytest.approx(theirs.issued.dies_at, abs=HAIR_SECONDS)
            assert ours.issued.lifetime_seconds == pytest.approx(theirs.issued.lifetime_seconds)


def event(tenant: str) -> AuditEvent:
    return AuditEvent("model", "done", "model", tenant)


def sealed(chance: random.Random, tenant: str) -> SealedTokens:
    number = chance.randrange(10**9)
    return SealedTokens(
        access_token=f"{number} {tenant} access_token a{number}".encode(),
        refresh_token=f"{number} {tenant} refresh_token r{number}".encode(),
        token_type="Bearer",
        scope="read",
        lifetime_seconds=LIFETIME_SECONDS,
        key_fingerprint="plain",
    )


def essence(lease: Lease | None) -> Any:
    if lease is None:
        return None
    return (lease.version, lease.owner, lease.refresh_token, lease.was_uncertain, lease.failures)


async def step(both: Both, chance: random.Random) -> None:
    tenant, cipher = both.tenant, PlainCipher()
    tokens, now = sealed(chance, tenant), chance.uniform(0, 2)
    plan = Schedule(15.0, chance.choice([0.0, 600.0]))
    holder = {"owner": chance.choice(["r1", "r2"]), "lease_seconds": LEASE_SECONDS}
    times = {"asked_at": 0.0, "use_before": 1.0}
    kinds = {"connect": 1, "claim": 4, "due": 2, "use": 5, "note": 2, "leave": 1}
    (kind,) = chance.choices([*kinds], [*kinds.values()])
    if kind == "connect":
        await both.do(
            lambda c: new_tokens.store_connected(
                c, tenant, tokens, plan, event(tenant), age_seconds=now
            )
        )
    elif kind == "claim":
        row = both.table.rows.get(tenant)
        is_early = chance.choice([True, True, False])
        version = (row.version if row else 1) - chance.choice([0, 0, 0, 1])
        found = await both.do(
            lambda c: leases.claim(
                c, tenant=tenant, version=version, is_early=is_early, **holder, **times
            )
        )
        ours, theirs = (each and leases.opened(cipher, each) for each in found)
        assert essence(ours) == essence(theirs)
        both.leases += [(ours, theirs)] if ours is not None else []
    elif kind == "due":
        besides = chance.choice([[], [], [], [tenant], ["another"]])
        found = await both.do(
            lambda c: leases.claim_due(c, limit=5, besides=besides, **holder, **times)
        )
        ours, theirs = ([leases.opened(cipher, each) for each in side] for side in found)
        assert list(map(essence, ours)) == [essence(x) for x in theirs if x.tenant == tenant]
        both.leases += zip(ours, [x for x in theirs if x.tenant == tenant], strict=True)
    elif kind == "note":
        await both.do(lambda c: grants.note_use(c, [tenant], lead_seconds=5.0))
    elif kind == "leave":
        ended = AuditEvent("disconnect", "done", "model", tenant)
        ours, theirs = await both.do(lambda c: grants.disconnect(c, cipher, tenant, ended))
        assert ours == theirs
        ours, theirs = await both.do(lambda c: grants.is_disconnected(c, tenant))
        assert ours == theirs
    elif both.leases:
        lease, theirs_too = chance.choice(both.leases)

        def connected_at(connection: Any) -> datetime | None:
            """Each side's own: the model's clock runs ahead by the time that was let pass."""
            is_ours = isinstance(connection, SimulatedConnection)
            return (lease if is_ours else theirs_too).connected_at

        back_off, above = chance.choice([0.0, 7.0]), chance.choice([1, 2, 6])
        use = chance.choice(
            [
                lambda c: new_tokens.store_refreshed(
                    c, lease, tokens, plan, event(tenant), age_seconds=now
                ),
                lambda c: new_tokens.find_stored(c, lease, tokens),
                lambda c: restoring.restore(
                    c,
                    tenant,
                    tokens,
                    plan,
                    AuditEvent("database_went_back", "restored", "model", tenant),
                    version=lease.version + above,
                    connected_at=connected_at(c),
                    age_seconds=now,
                    issued_at=None,
                ),
                lambda c: refresh_failures.record_refusal(c, lease, "no", event(tenant)),
                lambda c: refresh_failures.record_not_used(
                    c, lease, "busy", back_off, event(tenant)
                ),
                lambda c: refresh_failures.record_answer_lost(
                    c, lease, "lost", back_off, event(tenant)
                ),
                lambda c: leases.give_back(c, lease),
                lambda c: leases.extend(c, lease, lease_seconds=LEASE_SECONDS),
                lambda c: leases.extend(c, lease, lease_seconds=3 * LEASE_SECONDS),
            ]
        )
        ours, theirs = await both.do(use)
        if isinstance(ours, restoring.Restored):
            assert ours.found_version == theirs.found_version
            ours, theirs = ours.stored, theirs.stored
        if isinstance(ours, Stored):
            ours, theirs = ours.version, theirs and theirs.version
        assert ours == theirs


async def test_the_models_statements_do_what_postgres_does(postgres, database_url):
    started = "SELECT now() - pg_postmaster_start_time() > interval '4 seconds'"
    wait_until(lambda: sql(postgres, database_url, started) == "t", 10)
    database = Database(database_url, pool_size=1)
    chosen: Counter[str] = Counter()
    try:
        for seed in range(SEQUENCES):
            chance = random.Random(seed)
            both = Both(database, f"tenant-{seed}")
            # Other due grants don't concern this sequence.
            await database.single(
                lambda c: c.execute(text("UPDATE grants SET next_refresh_at = NULL"))
            )
            await database.single(lambda c, both=both: tenants.ensure(c, both.tenant))
            for _ in range(STEPS):
                if chance.random() < 0.4:
                    await both.pass_time(chance.choice([3.1, 12.7, 33.3, 61.9]))
                await step(both, chance)
                await both.check()
            await both.check_audit()
            chosen.update(f"{action} {outcome}" for action, outcome in both.table.audit)
    finally:
        await database.aclose()
    assert chosen["refresh answer_lost"] > SEQUENCES / 4, "leases ran out and were taken over"
    assert chosen["database_went_back restored"] > SEQUENCES / 10, "rows were behind"
