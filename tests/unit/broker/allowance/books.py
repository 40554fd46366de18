"""A database that holds one tenant's book, for the gate."""

from __future__ import annotations

import json
from types import SimpleNamespace

from tests.unit.broker.allowance.world import OFFSET
from tests.unit.values import ManualClock

from ignition_broker.storage import allowance as storage
from ignition_broker.storage.errors import StorageUnavailable


class BookDatabase:
    """Answers `storage.allowance`'s statements as Postgres would."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.window: dict | None = None
        self.leases: dict[str, list] = {}
        self.uses: dict[tuple[str, str], list] = {}
        self.reserving: list[dict] = []
        self.has_grant = True
        self.is_away = False
        self.writes = 0
        self.reads = 0
        self.overtaken = 0
        """So many writes come too late."""

    async def once(self, work):
        if self.is_away:
            raise StorageUnavailable("away")
        return await work(self)

    single = once

    async def execute(self, statement, _parameters=None):
        if statement is storage.RESERVES:
            return [SimpleNamespace(**row) for row in self.reserving]
        assert statement is storage.READ
        self.reads += 1
        row = SimpleNamespace(
            now=self.clock.at + OFFSET,
            has_grant=self.has_grant,
            leases=list(self.leases.values()),
            uses=list(self.uses.values()),
            **(self.window or {"revision": None}),
        )
        return SimpleNamespace(one=lambda: row)

    async def scalar(self, statement, given):
        assert statement is storage.WRITE
        if self.overtaken:
            self.overtaken -= 1
            self.window = (
                {**(self.window or {}), "revision": given["revision"] + 1}
                if (self.window)
                else None
            )
            return 0
        if given["revision"] != (self.window["revision"] if self.window else 0):
            return 0
        self.writes += 1
        columns = ("number", "started_at", "ends_at", "calls", "end_is_told", "counted")
        columns += ("counted_at", "others", "tells", "spent_until")
        self.window = {name: given[name] for name in columns}
        self.window |= {"revision": given["revision"] + 1, "past": json.loads(given["past"])}
        for name in given["over"]:
            self.leases.pop(name, None)
        held = ("replica", "number", "spare", "in_flight", "carried", "lease_until")
        self.leases[given["replica"]] = [given[name] for name in held]
        for use in json.loads(given["uses"]):
            self.uses[given["replica"], use["api_key"]] = [
                given["replica"],
                use["api_key"],
                given["number"],
                *(use[name] for name in ("used", "wanted", "first_at", "last_at")),
                *(use[name] for name in ("weight", "reserve", "granted")),
            ]
        return 1

    @property
    def spare(self) -> int:
        return sum(lease[2] for lease in self.leases.values())
