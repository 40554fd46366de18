"""Cases measured side by side: each once a round, in turn, so that what else the machine does
meets them all."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.load import wrk


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    connections: int = 32
    script: Path | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians over the rounds, but ``failed``, which is the sum. Times in seconds."""

    per_second: float
    p50: float
    p99: float
    bytes_per_second: float
    failed: int


def alternate(cases: Sequence[Case], *, rounds: int, seconds: float) -> dict[str, Figures]:
    measured = {case.name: [] for case in cases}
    for case in cases:
        _load(case, 1)
    for _ in range(rounds):
        for case in cases:
            measured[case.name].append(_load(case, seconds))
    return {
        name: Figures(
            statistics.median(each.per_second for each in all_of_it),
            statistics.median(each.p50 for each in all_of_it),
            statistics.median(each.p99 for each in all_of_it),
            statistics.median(each.bytes_per_second for each in all_of_it),
            sum(each.failed for each in all_of_it),
        )
        for name, all_of_it in measured.items()
    }


def _load(case: Case, seconds: float):
    return wrk(
        case.url,
        seconds=seconds,
        connections=case.connections,
        headers=case.headers,
        script=case.script,
    )
