"""How many calls of a window are left, by our own count and by what Ignition's headers say. Pure.

Ours: what all replicas have used, and what they hold. Ignition's: its newest count, which has all
calls that were answered, and may have those that were not. The difference is *others*: calls that
somebody else made for the same practice, or, below 0, calls of ours that Ignition does not count.
It is known within bounds, and kept as it was while it is within them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ignition_broker.broker.allowance.reports import Allowance, Heard, Report
from ignition_broker.storage.allowance import Book, Lease, Window

PAST_KEPT = 2
"""What a key used in a window before counts half as much with every window since."""


@dataclass(frozen=True, slots=True)
class Count:
    """A window as it stands.

    ``room``: calls that nobody has used or holds, besides what the reporting replica held spare.
    ``elsewhere``: what other live replicas hold spare. ``lost``: what replicas held that are gone,
    whom nobody can ask what they used of it. ``answered``: of the calls that were ``used``.
    """

    window: Window
    room: int
    elsewhere: int
    lost: int
    used: int
    answered: int
    live: Sequence[Lease]
    over: Sequence[Lease]


def window_at(book: Book, report: Report | None, allowance: Allowance) -> Window:
    """The window that is running: the stored one, or a new one where that is over, by the clock or
    by Ignition's word."""
    window, now = book.window, book.now
    heard_end = None if report is None or report.heard is None else report.heard.ends_at
    if window is None:
        return Window(0, 1, now, now + allowance.seconds, allowance.calls)
    is_later = heard_end is not None and heard_end >= window.ends_at + allowance.seconds / 2
    if now < window.ends_at + allowance.turn_margin_seconds and not (
        is_later and report is not None and report.has_turned
    ):
        return window
    return replace(
        window,
        number=window.number + 1,
        started_at=now,
        ends_at=now + allowance.seconds,
        calls=allowance.calls,
        end_is_told=False,
        counted=None,
        counted_at=None,
        others=0,
        tells=False if window.tells is None and book.uses else window.tells,
        spent_until=None,
        past=_past(book, window, allowance),
    )


def _past(book: Book, window: Window, allowance: Allowance) -> dict[str, int]:
    """Use by key in the window that is over, and in those before it."""
    windows_ago = 1 + int(max(book.now - window.ends_at, 0.0) // allowance.seconds)
    used: dict[str, int] = {key: calls // PAST_KEPT for key, calls in window.past.items()}
    last: dict[str, int] = {}
    for use in book.uses:
        if use.number == window.number:
            last[use.api_key] = last.get(use.api_key, 0) + use.used
    for key, calls in last.items():
        used[key] = max(calls, used.get(key, 0))
    fading = PAST_KEPT ** min(windows_ago - 1, 60)
    return {key: calls // fading for key, calls in used.items() if calls // fading > 0}


def is_about(report: Report, before: Window | None, window: Window, allowance: Allowance) -> bool:
    """Whether the report's use was made in ``window``; ``before`` is the window as it was stored.

    A replica to which Ignition said that a later window has begun does not know its number.
    """
    if not report.has_turned:
        return report.number == window.number
    end = None if report.heard is None else report.heard.ends_at
    is_new = before is None or window.number > before.number
    return is_new or (end is not None and abs(end - window.ends_at) < allowance.seconds / 2)


def counted(
    book: Book, report: Report, window: Window, allowance: Allowance, *, is_current: bool
) -> Count:
    """The window with what the report says taken into account.

    ``is_current``: whether the report's use was made in this window (`is_about`).
    """
    if report.heard is not None and is_current:
        window = _with_what_was_heard(window, report.heard, allowance)
    others = [lease for lease in book.leases if lease.replica != report.replica]
    live = [lease for lease in others if lease.lease_until > book.now]
    gone = [lease for lease in others if lease.lease_until <= book.now]
    unknown = [lease for lease in gone if not _is_settled(lease, window)]
    over = [lease for lease in gone if _is_settled(lease, window)]
    used = sum(
        use.used
        for use in book.uses
        if use.number == window.number and use.replica != report.replica
    )
    carried = sum(
        lease.carried if lease.number == window.number else _open(lease) for lease in live
    )
    elsewhere = sum(lease.spare for lease in live)
    lost = sum(_lost(lease, window) for lease in unknown)
    in_flight = sum(lease.in_flight for lease in (*live, *unknown) if lease.number == window.number)
    own_carried = report.carried
    if is_current:
        used += sum(key.used for key in report.keys.values())
        in_flight += report.in_flight
    else:
        own_carried += report.in_flight
    taken = used + carried + own_carried + lost
    if window.counted is not None:
        most = window.counted - (used - in_flight)
        least = window.counted - (taken + elsewhere)
        known = most if least > 0 else min(max(window.others, least), most)
        window = replace(window, others=known)
    room = window.calls - taken - elsewhere - window.others
    if window.calls > allowance.calls:
        # The operator keeps some of it for others.
        room = min(room, allowance.calls - taken - elsewhere - min(window.others, 0))
    if window.spent_until is not None and window.spent_until > book.now:
        room = 0
    return Count(window, room, elsewhere, lost, used, used - in_flight, live, over)


def _with_what_was_heard(window: Window, heard: Heard, allowance: Allowance) -> Window:
    """Answers overtake each other: the highest count and, of ends that are told in whole seconds,
    the earliest are the newest."""
    if heard.ends_at is not None:
        ends_at = min(heard.ends_at, window.ends_at) if window.end_is_told else heard.ends_at
        if abs(heard.ends_at - window.ends_at) < allowance.seconds / 2 or not window.end_is_told:
            window = replace(window, ends_at=ends_at, end_is_told=True)
    if heard.calls is not None:
        window = replace(window, calls=heard.calls)
    if heard.counted is not None:
        window = replace(
            window,
            counted=max(heard.counted, window.counted or 0),
            counted_at=max(heard.at, window.counted_at or 0.0),
            tells=True,
        )
    if heard.spent_until is not None:
        window = replace(window, spent_until=max(heard.spent_until, window.spent_until or 0.0))
    return window


def _is_settled(lease: Lease, window: Window) -> bool:
    """Whether nothing that a replica held when it went away can still matter: it was gone before
    the window began, or Ignition has told its count since."""
    return lease.lease_until <= window.started_at or (
        window.counted_at is not None and window.counted_at > lease.lease_until
    )


def _lost(lease: Lease, window: Window) -> int:
    if lease.number == window.number:
        # What was in flight is part of its use already.
        return lease.spare + lease.carried
    return lease.spare + _open(lease)


def _open(lease: Lease) -> int:
    return lease.in_flight + lease.carried
