"""Counts, for the metric, what the gate did to each key's calls."""

from __future__ import annotations

from collections.abc import Iterator

MOST_KEYS = 200
OTHERS = "(others)"
"""The names of API keys are few, but workloads may have any: so many are told apart."""


class KeyCount:
    """One key's calls: those that were sent, and those that were refused."""

    __slots__ = ("refused", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.refused = 0


class AllowanceCounts:
    """Calls by key and outcome, in this process."""

    def __init__(self) -> None:
        self._counts: dict[str, KeyCount] = {}

    def of(self, key: str) -> KeyCount:
        """The key's count, to be counted up; beyond `MOST_KEYS` that of all others."""
        count = self._counts.get(key)
        if count is None:
            name = key if len(self._counts) < MOST_KEYS else OTHERS
            count = self._counts.setdefault(name, KeyCount())
        return count

    def collect(self) -> Iterator[tuple[str, str, int]]:
        """Key, outcome (``sent`` or ``refused``) and how many calls."""
        for key, count in self._counts.items():
            if count.sent:
                yield key, "sent", count.sent
            if count.refused:
                yield key, "refused", count.refused
