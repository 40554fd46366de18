"""What an admin sees of all tenants at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ignition_broker.model import GrantStatus, TenantSummary
from ignition_broker.storage import overview, refresh_hours, tenants
from ignition_broker.storage.connection import Connection
from ignition_broker.storage.database import Database
from ignition_broker.storage.overview import Ending, MetCondition, TenantCounts
from ignition_broker.storage.refresh_hours import RefreshHour

MOST_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Overview:
    """``ended``: the first tenants that have to be connected again. ``endings``: the grants that
    end first. ``hours``: the last 24, oldest first."""

    counts: TenantCounts
    ended: Sequence[TenantSummary]
    endings: Sequence[Ending]
    conditions: Sequence[MetCondition]
    hours: Sequence[RefreshHour]


async def read_overview(database: Database) -> Overview:
    """Reads all of it, from one snapshot of the database."""

    async def read(connection: Connection) -> Overview:
        return Overview(
            await overview.count(connection),
            await tenants.list_after(
                connection,
                after="",
                status=GrantStatus.REAUTHORIZATION_REQUIRED,
                limit=MOST_SHOWN,
            ),
            await overview.endings(connection, limit=MOST_SHOWN),
            await overview.met(connection),
            await refresh_hours.last_day(connection),
        )

    return await database.once(read)
