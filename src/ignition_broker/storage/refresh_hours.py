"""How many refreshes there were in each hour, by what came of them: for the console's chart.

Counted by each replica and added up here, since to count the audit trail would mean to read
millions of events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text

from ignition_broker.storage.connection import Connection

HOURS_KEPT: Final = 48

# In one order, so that two replicas never wait for each other's rows.
ADD = text("""
    INSERT INTO refresh_hours (hour, client, outcome, number)
    SELECT date_trunc('hour', now()), client, outcome, number FROM unnest(
        CAST(:clients AS text[]), CAST(:outcomes AS text[]), CAST(:numbers AS bigint[])
    ) AS counted(client, outcome, number)
    ORDER BY client, outcome
    ON CONFLICT (hour, client, outcome)
    DO UPDATE SET number = refresh_hours.number + excluded.number
""")

CLEAR = text(f"""
    DELETE FROM refresh_hours WHERE (hour, client, outcome) IN (
        SELECT hour, client, outcome FROM refresh_hours
        WHERE hour < now() - interval '{HOURS_KEPT} hours' FOR UPDATE SKIP LOCKED
    )
""")  # noqa: S608  # a constant

LIST = text("""
    SELECT hours.hour, counted.outcome, coalesce(sum(counted.number), 0)::bigint AS number
    FROM generate_series(date_trunc('hour', now()) - interval '23 hours',
                         date_trunc('hour', now()), interval '1 hour') AS hours(hour)
    LEFT JOIN refresh_hours AS counted ON counted.hour = hours.hour
    GROUP BY hours.hour, counted.outcome ORDER BY hours.hour
""")


@dataclass(frozen=True, slots=True)
class RefreshHour:
    """One hour from ``hour`` on. ``numbers``: by outcome; an outcome that is missing is 0."""

    hour: datetime
    numbers: Mapping[str, int]


async def add(connection: Connection, counts: Mapping[tuple[str, str], int]) -> None:
    """Adds to this hour's numbers. ``counts``: by OAuth client and outcome."""
    given = {
        "clients": [client for client, _outcome in counts],
        "outcomes": [outcome for _client, outcome in counts],
        "numbers": list(counts.values()),
    }
    await connection.execute(ADD, given)


async def clear(connection: Connection) -> None:
    """Deletes hours that are long over."""
    await connection.execute(CLEAR)


async def last_day(connection: Connection) -> Sequence[RefreshHour]:
    """The last 24 hours, oldest first, of all OAuth clients together; the last one is not over."""
    hours: dict[datetime, dict[str, int]] = {}
    for row in await connection.execute(LIST, {}):
        numbers = hours.setdefault(row.hour, {})
        if row.outcome is not None:
            numbers[row.outcome] = row.number
    return [RefreshHour(hour, numbers) for hour, numbers in hours.items()]
