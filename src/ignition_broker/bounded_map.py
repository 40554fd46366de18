"""A dict that holds a bounded number of entries.

cachetools' `LRUCache` was measured beside it: a hit costs 127 ns instead of 27, a store 489 instead
of 192, and it neither says what it evicted nor iterates in the order of age, which some of the
users of this one need.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class BoundedMap(OrderedDict[Key, Value]):
    """Holds at most ``most`` entries, of which the oldest is evicted first.

    It iterates from the oldest to the newest. An entry becomes the newest by `store`. Where the
    least recently used entry is to be evicted, a reader also calls `move_to_end`, which is left out
    of `get` because not every user wants it.
    """

    __slots__ = ("_most",)

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def store(self, key: Key, value: Value) -> tuple[Key, Value] | None:
        """Stores an entry as the newest. Returns the entry that was evicted for it, if any."""
        self[key] = value
        self.move_to_end(key)
        return self.popitem(last=False) if len(self) > self._most else None
