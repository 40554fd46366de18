"""Answers a replica's report: a chunk of calls, and how each key stands. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ignition_broker.broker.allowance.counting import Count, counted, is_about, window_at
from ignition_broker.broker.allowance.key_calls import KeyCalls, all_keys, claims_at, headroom
from ignition_broker.broker.allowance.reports import Allowance, KeyReport, Report, Standing
from ignition_broker.storage.allowance import Book, Lease, ReservingKey, Use, Window

OPENING_SECONDS = 1.0
"""At the beginning of a window, where Ignition's headers tell what remains, one call goes ahead,
for at most so long: somebody else may have spent the window."""
HOLDERS_SHARE = 4
"""A replica's chunk is at most one part in so many of what all live replicas could be given, so
that little is held by whoever does not need it when the window runs short."""
LEAST_CHUNK = 5
MOST_LOST = 100
"""One part in so many of a window is lost at most if a replica is killed and Ignition does not
tell what remains: that is a replica's largest chunk, where there are several."""
ASK_AGAIN_SECONDS = 0.25
_LOOKS_AHEAD = 16
NEW_KEY = ""
"""Stands for a key that has made no call yet."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be stored, and what the replica may do once it is.

    - ``is_about_report``: the report's use was made in this window, and goes on counting.
    - ``standings``: by key; that of `NEW_KEY` is for all others.
    - ``remaining``: calls that the tenant has left.
    - ``outstanding``: what other replicas hold spare.
    - ``is_tight``: calls are short, so that news is needed soon.
    """

    window: Window
    lease: Lease
    uses: Sequence[Use]
    over: Sequence[str]
    is_about_report: bool
    standings: Mapping[str, Standing]
    remaining: int
    outstanding: int
    replicas: int
    is_tight: bool


def planned(
    book: Book, report: Report, allowance: Allowance, reserving: Sequence[ReservingKey] = ()
) -> Plan:
    """What to store and to answer. ``reserving``: keys that have a reserve at this tenant."""
    window = window_at(book, report, allowance)
    is_current = is_about(report, book.window, window, allowance)
    count = counted(book, report, window, allowance, is_current=is_current)
    window = count.window
    own = report.keys if is_current else {}
    waiting = {key: one.waiting for key, one in report.keys.items() if one.waiting}
    live = {lease.replica for lease in count.live}
    keys = all_keys(book, window, report, own, reserving, live)
    available, is_passing = _available(count, book.now)
    active = {key for key, one in own.items() if one.last_at >= book.now - allowance.lease_seconds}
    standings = _standings(
        keys,
        count,
        available,
        book.now,
        allowance,
        {*active, *waiting, NEW_KEY},
        is_passing=is_passing,
    )
    spare = _chunk(count, available, report, waiting, standings, allowance)
    # More than the chunk could not be used before the next report, and would be kept from others.
    standings = {
        name: replace(standing, here=min(standing.here, spare))
        for name, standing in standings.items()
    }
    lease = Lease(
        report.replica,
        window.number,
        spare,
        report.in_flight if is_current else 0,
        report.carried if is_current else report.carried + report.in_flight,
        book.now + allowance.lease_seconds,
    )
    replicas = 1 + len(count.live)
    return Plan(
        window=window,
        lease=lease,
        uses=[
            _use(report.replica, key, one, window.number, standings.get(key))
            for key, one in own.items()
        ],
        over=[each.replica for each in count.over],
        is_about_report=is_current,
        standings=standings,
        remaining=max(count.room + count.elsewhere, 0),
        outstanding=count.elsewhere,
        replicas=replicas,
        is_tight=count.room < max(window.calls // 4, 4 * allowance.chunk) or bool(waiting),
    )


def _available(count: Count, now: float) -> tuple[int, bool]:
    """How many calls may be held by this replica now; and whether it may soon be more."""
    window = count.window
    room = max(count.room, 0)
    is_opening = (
        window.counted is None and not count.answered and now < window.started_at + OPENING_SECONDS
    )
    if room and is_opening and window.tells is not False:
        is_first = count.used == count.answered and not count.elsewhere
        return int(is_first), True
    if room and window.tells and count.lost + count.elsewhere:
        # The last call is kept until nobody holds any: its answer tells what became of those.
        return room - 1, True
    return room, bool(count.elsewhere) and count.room + count.elsewhere > 0


def _standings(
    keys: Mapping[str, KeyCalls],
    count: Count,
    available: int,
    now: float,
    allowance: Allowance,
    asking: set[str],
    *,
    is_passing: bool,
) -> dict[str, Standing]:
    room = max(count.room, 0)
    whole = room + count.elsewhere
    window = count.window
    found: dict[str, Standing] = {}
    claims = claims_at(keys, now, window, allowance)
    turn = window.ends_at + allowance.turn_margin_seconds
    is_paused = window.spent_until is not None and window.spent_until > now
    for name in asking:
        key = keys.get(name, KeyCalls())
        more = min(headroom(name, keys, whole, claims), room)
        if more > 0 and available > 0:
            here = max(1, more // max(key.replicas, 1))
            if name == NEW_KEY and more < HOLDERS_SHARE * allowance.chunk:
                # A key that is not known yet can't be granted any of what is short.
                here = 0
            found[name] = Standing(more, here, now)
        elif is_paused and window.spent_until is not None:
            found[name] = Standing(0, 0, window.spent_until)
        elif more > 0 or (room <= 0 and is_passing) or (room > 0 and key.granted):
            found[name] = Standing(max(more, 0), 0, now + ASK_AGAIN_SECONDS, is_passing=True)
        elif room <= 0:
            found[name] = Standing(0, 0, turn)
        else:
            retry_at = _room_comes_at(name, keys, whole, now, turn, window, allowance)
            found[name] = Standing(0, 0, retry_at)
    return found


def _room_comes_at(
    name: str,
    keys: Mapping[str, KeyCalls],
    whole: int,
    now: float,
    turn: float,
    window: Window,
    allowance: Allowance,
) -> float:
    """When what is kept for others will have faded so far that the key may make a call."""
    for step in range(1, _LOOKS_AHEAD):
        at = now + (window.ends_at - now) * (step / _LOOKS_AHEAD) ** 2
        if headroom(name, keys, whole, claims_at(keys, at, window, allowance)) > 0:
            return at
    return turn


def _chunk(
    count: Count,
    available: int,
    report: Report,
    waiting: Mapping[str, int],
    standings: Mapping[str, Standing],
    allowance: Allowance,
) -> int:
    """How many calls the replica may hold spare."""
    if not (report.is_active or waiting):
        return 0
    most = allowance.chunk
    if count.live or count.window.others > 0 or count.lost:
        most = min(
            most,
            max(1, available // (HOLDERS_SHARE * (1 + len(count.live)))),
            max(LEAST_CHUNK, count.window.calls // MOST_LOST),
        )
    # Nobody could use what it holds beyond the room of those who ask here.
    usable = sum(min(standing.headroom, most) for standing in standings.values())
    return max(min(most, available, usable), 0)


def _use(replica: str, key: str, report: KeyReport, number: int, standing: Standing | None) -> Use:
    return Use(
        replica,
        key,
        number,
        report.used,
        report.wanted,
        report.first_at,
        report.last_at,
        report.weight,
        report.reserve,
        0 if standing is None else standing.here,
    )
