"""Max-min fairness with weights: who gets how much of what is not enough for all. Pure.

The picture is water poured into vessels that are as wide as the weights: all fill to one level,
except those that are full before (they want no more) and those that begin above it (they have taken
more already, or something is reserved for them).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claim:
    """What one party wants: at least ``floor`` whatever others want, at most ``demand``.

    ``weight`` is above 0; ``floor`` at least 0; ``demand`` may be infinite.
    """

    weight: float
    demand: float
    floor: float = 0.0


def shares(total: float, claims: Sequence[Claim]) -> list[float]:
    """How much of ``total`` each claim gets, in their order.

    Nothing is left over while somebody wants more. No share grows except at the cost of one that
    is, by weight, no larger. Where the floors alone are more than ``total``, each gets its floor:
    what was taken is taken.
    """
    level = water_level(total, claims)
    return [_at(level, claim) for claim in claims]


def water_level(total: float, claims: Sequence[Claim]) -> float:
    """The share of a weight of 1, had it no floor and no end to its demand; infinite where all
    demands are met."""
    if sum(max(claim.floor, claim.demand) for claim in claims) <= total:
        return math.inf
    poured = sum(claim.floor for claim in claims)
    if poured >= total:
        return 0.0
    # At each of these levels one vessel begins to fill, or is full.
    steps = sorted(
        (at / claim.weight, width)
        for claim in claims
        if claim.demand > claim.floor
        for at, width in ((claim.floor, claim.weight), (claim.demand, -claim.weight))
        if math.isfinite(at)
    )
    level = width = 0.0
    for at, change in steps:
        if width > 0 and poured + (at - level) * width >= total:
            break
        poured += (at - level) * width
        level = at
        width += change
    return level + (total - poured) / width if width > 0 else level


def _at(level: float, claim: Claim) -> float:
    return max(claim.floor, min(claim.demand, level * claim.weight))
