"""What each API key has used of a tenant's calls, and how many more it may make. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ignition_broker.broker.allowance.forecast import expected_calls, kept_reserve
from ignition_broker.broker.allowance.reports import Allowance, KeyReport, Report
from ignition_broker.broker.allowance.shares import Claim, shares
from ignition_broker.storage.allowance import Book, ReservingKey, Use, Window

_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class KeyCalls:
    """One key's calls at all replicas; ``replicas``: at how many it was seen. ``granted``: calls
    that the other replicas let it make."""

    used: int = 0
    granted: int = 0
    wanted: int = 0
    first_at: float = math.inf
    last_at: float = -math.inf
    weight: int = 1
    reserve: int = 0
    past: int = 0
    replicas: int = 0

    def with_use(self, use: Use | KeyReport) -> KeyCalls:
        return replace(
            self,
            used=self.used + use.used,
            wanted=self.wanted + use.wanted,
            first_at=min(self.first_at, use.first_at),
            last_at=max(self.last_at, use.last_at),
            weight=max(use.weight, 1),
            reserve=use.reserve,
            replicas=self.replicas + 1,
        )

    def claim(self, at: float, window: Window, allowance: Allowance) -> Claim:
        """What is kept for it of what is left of the window at ``at``."""
        left = max(window.ends_at - at, 0.0)
        length = allowance.seconds
        more = expected_calls(
            wanted=self.wanted,
            first_seconds_ago=at - self.first_at,
            last_seconds_ago=at - self.last_at,
            used=self.used,
            past=self.past,
            left_seconds=left,
            window_seconds=length,
        )
        reserved = kept_reserve(self.reserve, left_seconds=left, window_seconds=length)
        floor = max(self.used + self.granted, reserved)
        return Claim(self.weight, max(self.used + more, floor), floor)


def all_keys(
    book: Book,
    window: Window,
    report: Report,
    own: Mapping[str, KeyReport],
    reserving: Sequence[ReservingKey],
    live: set[str],
) -> dict[str, KeyCalls]:
    keys = {key: KeyCalls(past=past) for key, past in window.past.items()}
    for reserved in reserving:
        known = keys.get(reserved.api_key, KeyCalls())
        keys[reserved.api_key] = replace(known, weight=reserved.weight, reserve=reserved.reserve)
    for use in book.uses:
        if use.number == window.number and use.replica != report.replica:
            known = keys.get(use.api_key, KeyCalls()).with_use(use)
            if use.replica in live:
                known = replace(known, granted=known.granted + use.granted)
            keys[use.api_key] = known
    for name, one in own.items():
        keys[name] = keys.get(name, KeyCalls()).with_use(one)
    for name, one in report.keys.items():
        if name not in own and one.waiting:
            known = keys.get(name, KeyCalls())
            keys[name] = replace(known, weight=one.weight, reserve=one.reserve, replicas=1)
    return keys


def claims_at(
    keys: Mapping[str, KeyCalls], at: float, window: Window, allowance: Allowance
) -> dict[str, Claim]:
    return {name: key.claim(at, window, allowance) for name, key in keys.items()}


def headroom(
    name: str, keys: Mapping[str, KeyCalls], whole: int, claims: Mapping[str, Claim]
) -> int:
    """How many more calls the key may make if it wants as many as it can get. ``whole``: calls that
    nobody has made."""
    own = claims.get(name, Claim(1, 0))
    others = [claim for other, claim in claims.items() if other != name]
    total = whole + sum(key.used for key in keys.values())
    share, *rest = shares(total, [Claim(own.weight, math.inf, own.floor), *others])
    # Calls are whole: what a small caller will want is rounded up, and the fractions of those who
    # get less than they want go to whoever of them comes first.
    kept = sum(
        math.ceil(part - _ROUNDING)
        if part >= claim.demand - _ROUNDING
        else max(math.floor(part + _ROUNDING), math.ceil(claim.floor - _ROUNDING))
        for part, claim in zip(rest, others, strict=True)
    )
    key = keys.get(name, KeyCalls())
    taken = key.used + key.granted
    whole_share = math.floor(share + _ROUNDING)
    is_fraction_free = whole_share + kept + 1 <= total + _ROUNDING
    if whole_share <= taken and share > taken + _ROUNDING and is_fraction_free:
        return 1
    return whole_share - taken
