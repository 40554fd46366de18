"""Counts, for the metric, what the gate did to each key's calls."""

from __future__ import annotations

from collections.abc import Iterator

MOST_KEYS = 200
OTHERS = "(others)"
"""The names of API keys are few, but workloads may have any: so many are told apart."""


class AllowanceCounts:
    """Calls by key and outcome, in this process."""

    def __init__(self) -> None:
        self._sent: dict[str, int] = {}
        self._refused: dict[str, int] = {}

    def sent(self, key: str) -> None:
        if key in self._sent:
            self._sent[key] += 1
        else:
            _add(self._sent, key)

    def refuse(self, key: str) -> None:
        _add(self._refused, key)

    def collect(self) -> Iterator[tuple[str, str, int]]:
        """Key, outcome (``sent`` or ``refused``) and how many calls."""
        for outcome, counts in (("sent", self._sent), ("refused", self._refused)):
            for key, number in counts.items():
                yield key, outcome, number


def _add(counts: dict[str, int], key: str) -> None:
    if key not in counts and len(counts) >= MOST_KEYS:
        key = OTHERS
    counts[key] = counts.get(key, 0) + 1
