"""What is promised of a window's calls, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from ignition_broker.broker.allowance.shares import Claim, shares
from tests.allowance.load import Key, Tally

LEAST_USED = 0.98
LEAST_SHARE = 0.80


@dataclass(frozen=True)
class WindowFigures:
    """``used``: by the provider's count, as a part of the allowance. ``least_share``: of the key
    that got the least of its fair share, as a part of that. ``seconds``: from the load's beginning
    to the window's first answer, and to its last."""

    used: float
    served: int
    least_share: float
    least_key: str
    throttled: int
    seconds: tuple[float, float]


def figures(tally: Tally, keys: list[Key], calls: int, ends: list[int]) -> list[WindowFigures]:
    """Of the windows that end at ``ends``."""
    fair = shares(calls, [Claim(key.weight, key.wanted) for key in keys])
    found = []
    for end in ends:
        served = tally.served[end]
        parts = {key.name: served[key.name] / share for key, share in zip(keys, fair, strict=True)}
        least = min(parts, key=lambda name: parts[name])
        used = (calls - tally.left.get(end, calls)) / calls
        found.append(
            WindowFigures(
                used, served.total(), parts[least], least, tally.throttled[end], tally.times[end]
            )
        )
    return found
