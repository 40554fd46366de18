"""What a tenant has used of its calls at Ignition's API: a window, chunks that replicas hold, and
use by API key.

A replica reads a tenant's book, decides on it, and writes its own part of it back if nobody has
written meanwhile (``revision``); so no lock is held while it decides. All moments are seconds since
1970 on the database's clock.

Over 250 lines: a tenant's three tables are read by one statement and written by one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import text

from ignition_broker.storage.connection import Connection

READ = text("""
    SELECT extract(epoch FROM clock_timestamp())::float8 AS now, w.revision, w.number,
        extract(epoch FROM w.started_at)::float8 AS started_at,
        extract(epoch FROM w.ends_at)::float8 AS ends_at,
        w.calls, w.end_is_told, w.counted,
        extract(epoch FROM w.counted_at)::float8 AS counted_at, w.others, w.tells,
        extract(epoch FROM w.spent_until)::float8 AS spent_until, w.past,
        EXISTS (SELECT FROM grants g WHERE g.tenant_id = t.tenant_id) AS has_grant,
        (SELECT jsonb_agg(jsonb_build_array(l.replica, l.number, l.spare, l.in_flight, l.carried,
                extract(epoch FROM l.lease_until)::float8))
         FROM allowance_leases l WHERE l.tenant_id = t.tenant_id) AS leases,
        (SELECT jsonb_agg(jsonb_build_array(u.replica, u.api_key, u.number, u.used, u.wanted,
                extract(epoch FROM u.first_at)::float8, extract(epoch FROM u.last_at)::float8,
                u.weight, u.reserve, u.granted))
         FROM allowance_use u WHERE u.tenant_id = t.tenant_id) AS uses
    FROM (SELECT CAST(:tenant AS text) AS tenant_id) t
    LEFT JOIN allowance_windows w ON w.tenant_id = t.tenant_id
""")

# Of one replica's own rows, and of those that are over; the window's row is written by whoever
# has seen its newest revision.
WRITE = text("""
    WITH written AS (
        INSERT INTO allowance_windows (tenant_id, revision, number, started_at, ends_at, calls,
            end_is_told, counted, counted_at, others, tells, spent_until, past)
        VALUES (:tenant, 1, :number, to_timestamp(:started_at), to_timestamp(:ends_at), :calls,
            :end_is_told, :counted, to_timestamp(:counted_at), :others, :tells,
            to_timestamp(:spent_until), CAST(:past AS jsonb))
        ON CONFLICT (tenant_id) DO UPDATE
        SET revision = allowance_windows.revision + 1, number = excluded.number,
            started_at = excluded.started_at, ends_at = excluded.ends_at,
            calls = excluded.calls, end_is_told = excluded.end_is_told,
            counted = excluded.counted, counted_at = excluded.counted_at,
            others = excluded.others, tells = excluded.tells,
            spent_until = excluded.spent_until, past = excluded.past
        WHERE allowance_windows.revision = :revision
        RETURNING tenant_id
    ), lease AS (
        INSERT INTO allowance_leases
            (tenant_id, replica, number, spare, in_flight, carried, lease_until)
        SELECT tenant_id, :replica, :number, :spare, :in_flight, :carried,
            to_timestamp(:lease_until)
        FROM written
        ON CONFLICT (tenant_id, replica) DO UPDATE
        SET number = excluded.number, spare = excluded.spare, in_flight = excluded.in_flight,
            carried = excluded.carried, lease_until = excluded.lease_until
    ), used AS (
        INSERT INTO allowance_use (tenant_id, replica, api_key, number, used, wanted, first_at,
            last_at, weight, reserve, granted)
        SELECT written.tenant_id, :replica, k.api_key, :number, k.used, k.wanted,
            to_timestamp(k.first_at), to_timestamp(k.last_at), k.weight, k.reserve, k.granted
        FROM written, jsonb_to_recordset(CAST(:uses AS jsonb)) AS k(api_key text, used bigint,
            wanted bigint, first_at float8, last_at float8, weight int, reserve int,
            granted bigint)
        ON CONFLICT (tenant_id, replica, api_key) DO UPDATE
        SET number = excluded.number, used = excluded.used, wanted = excluded.wanted,
            first_at = excluded.first_at, last_at = excluded.last_at, weight = excluded.weight,
            reserve = excluded.reserve, granted = excluded.granted
    ), over AS (
        DELETE FROM allowance_leases l USING written
        WHERE l.tenant_id = written.tenant_id AND l.replica = ANY(:over)
          AND l.replica <> :replica
    ), forgotten AS (
        DELETE FROM allowance_use u USING written
        WHERE u.tenant_id = written.tenant_id AND u.number < :number
          AND (u.replica <> :replica OR u.api_key <> ALL(:named))
    )
    SELECT count(*) FROM written
""")

RESERVES = text("""
    SELECT name, tenants, allowance_weight, allowance_reserve FROM api_keys
    WHERE allowance_reserve > 0 AND revoked_at IS NULL AND 'proxy' = ANY(scopes)
      AND (expires_at IS NULL OR expires_at > now())
    ORDER BY name LIMIT 1000
""")


@dataclass(frozen=True, slots=True)
class Window:
    """A tenant's window: in it, ``calls`` may be made.

    - ``revision``: 0 before the first was stored.
    - ``number``: counts the tenant's windows.
    - ``end_is_told``: Ignition's headers say when it ends; else it is a guess.
    - ``counted``: the most calls that Ignition is known to have counted in it, by anybody, and
      ``counted_at`` when that was last heard; None: nothing was heard.
    - ``others``: of those, how many the broker did not make; below 0 where Ignition counts less.
    - ``tells``: whether Ignition's headers have ever told what remains; None: not known yet.
    - ``spent_until``: Ignition refused a call for that long.
    - ``past``: use by key in windows before.
    """

    revision: int
    number: int
    started_at: float
    ends_at: float
    calls: int
    end_is_told: bool = False
    counted: int | None = None
    counted_at: float | None = None
    others: int = 0
    tells: bool | None = None
    spent_until: float | None = None
    past: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lease:
    """What a replica holds of a window until ``lease_until``.

    - ``spare``: calls that it may make and has not begun.
    - ``in_flight``: calls that it has begun, and that were not answered; they count as used.
    - ``carried``: such calls of the window before, which may be counted in this one.
    """

    replica: str
    number: int
    spare: int
    in_flight: int
    carried: int
    lease_until: float


@dataclass(frozen=True, slots=True)
class Use:
    """What one key has used at one replica in the window ``number``.

    ``wanted``: calls that it made or was refused, the first and last of them at ``first_at`` and
    ``last_at``. ``granted``: calls that the replica lets it make before it reports again.
    """

    replica: str
    api_key: str
    number: int
    used: int
    wanted: int
    first_at: float
    last_at: float
    weight: int = 1
    reserve: int = 0
    granted: int = 0


@dataclass(frozen=True, slots=True)
class Book:
    """All that is stored of a tenant's allowance, as of ``now``; no window before the first call.

    ``has_grant``: False for a tenant that was never connected.
    """

    now: float
    window: Window | None
    leases: Sequence[Lease] = ()
    uses: Sequence[Use] = ()
    has_grant: bool = True


@dataclass(frozen=True, slots=True)
class ReservingKey:
    """An API key with a reserve, and the patterns of the tenants that it has it at."""

    api_key: str
    tenants: tuple[str, ...]
    weight: int
    reserve: int


async def read(connection: Connection, tenant: str) -> Book:
    """The tenant's book."""
    row = (await connection.execute(READ, {"tenant": tenant})).one()
    if row.revision is None:
        return Book(row.now, None, has_grant=row.has_grant)
    window = Window(
        revision=row.revision,
        number=row.number,
        started_at=row.started_at,
        ends_at=row.ends_at,
        calls=row.calls,
        end_is_told=row.end_is_told,
        counted=row.counted,
        counted_at=row.counted_at,
        others=row.others,
        tells=row.tells,
        spent_until=row.spent_until,
        past=row.past,
    )
    return Book(
        row.now,
        window,
        [Lease(*fields) for fields in row.leases or ()],
        [Use(*fields) for fields in row.uses or ()],
    )


async def write(
    connection: Connection,
    tenant: str,
    window: Window,
    lease: Lease,
    uses: Sequence[Use],
    over: Sequence[str],
) -> bool:
    """Writes the window, one replica's lease and its use by key; returns False if somebody has
    written since ``window.revision`` was read.

    ``uses`` are that replica's, in full for each key that it names. ``over``: replicas whose leases
    are to be deleted.
    """
    parameters: dict[str, object] = {
        "tenant": tenant,
        "revision": window.revision,
        "number": window.number,
        "started_at": window.started_at,
        "ends_at": window.ends_at,
        "calls": window.calls,
        "end_is_told": window.end_is_told,
        "counted": window.counted,
        "counted_at": window.counted_at,
        "others": window.others,
        "tells": window.tells,
        "spent_until": window.spent_until,
        "past": json.dumps(window.past),
        "replica": lease.replica,
        "spare": lease.spare,
        "in_flight": lease.in_flight,
        "carried": lease.carried,
        "lease_until": lease.lease_until,
        "uses": json.dumps(
            [
                {
                    "api_key": use.api_key,
                    "used": use.used,
                    "wanted": use.wanted,
                    "first_at": use.first_at,
                    "last_at": use.last_at,
                    "weight": use.weight,
                    "reserve": use.reserve,
                    "granted": use.granted,
                }
                for use in uses
            ]
        ),
        "named": [use.api_key for use in uses],
        "over": list(over),
    }
    return bool(await connection.scalar(WRITE, parameters))


async def reserving_keys(connection: Connection) -> list[ReservingKey]:
    """The API keys that have a reserve and work."""
    return [
        ReservingKey(row.name, tuple(row.tenants), row.allowance_weight, row.allowance_reserve)
        for row in await connection.execute(RESERVES)
    ]
