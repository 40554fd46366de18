"""Whether this process hears of changes, and what memory may be believed meanwhile.

A promise of the product is that no replica serves a token a second after its disconnect. A
LISTEN connection that merely seems open does not keep it: the process may have been stopped, the
network be gone, or a pooler be between. So what is held counts only for `TRUST_SECONDS` from the
last notification of this process's own that came back on that connection, which proves that every
change before it was heard.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ignition_broker.clock import Clock

TRUST_SECONDS = 0.9
PATIENCE_SECONDS = 1.0
"""How long Postgres is waited for where memory holds something that was good before."""
_DROPS_REMEMBERED = 10_000

Key = TypeVar("Key")
Value = TypeVar("Value")


class Hearing:
    """``epoch`` changes whenever a change may have been missed."""

    def __init__(self, clock: Clock) -> None:
        self._monotonic = clock.monotonic
        self._trusted_until = 0.0
        self.epoch = 0
        self.is_deaf = False
        """Postgres answers, and changes are not heard of: unlike where it is away, somebody may be
        changing what is held, so none of it is to be used."""

    def begins(self) -> None:
        """LISTEN began; what was held before may have changed unheard."""
        self.epoch += 1

    def is_proved(self, asked_at: float) -> None:
        """A notification that was sent at ``asked_at``, on the monotonic clock, came back."""
        self._trusted_until = asked_at + TRUST_SECONDS
        self.is_deaf = False

    def is_disproved(self) -> None:
        """A notification was sent and did not come back."""
        self.is_deaf = True

    def ends(self) -> None:
        self.epoch += 1
        self._trusted_until = 0.0

    @property
    def is_trusted(self) -> bool:
        return self._monotonic() < self._trusted_until


@dataclass(frozen=True, slots=True)
class Mark:
    """When a row was about to be read: the epoch, and how many drops there had been."""

    epoch: int
    drops: int


class HeardValues(Generic[Key, Value]):
    """A bounded map, least recently used out first, that does not keep what may be out of date."""

    def __init__(self, hearing: Hearing, capacity: int) -> None:
        self._hearing = hearing
        self._capacity = capacity
        self._held: OrderedDict[Key, tuple[int, Value]] = OrderedDict()
        self._drops = 0
        self._dropped_at: OrderedDict[Key, int] = OrderedDict()
        self._all_dropped_at = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def drops(self) -> int:
        """How many there have been; the same number means that nothing was dropped since."""
        return self._drops

    def get(self, key: Key) -> Value | None:
        """What is known to be current."""
        held = self._held.get(key)
        if held is None or held[0] != self._hearing.epoch or not self._hearing.is_trusted:
            return None
        self._held.move_to_end(key)
        return held[1]

    def get_unheard(self, key: Key) -> Value | None:
        """What was current once, for when Postgres can't be asked."""
        held = None if self._hearing.is_deaf else self._held.get(key)
        return None if held is None else held[1]

    def get_of_epoch(self, key: Key, epoch: int) -> Value | None:
        """What was read or stored in that epoch of the change feed."""
        held = self._held.get(key)
        return None if held is None or held[0] != epoch else held[1]

    def mark(self) -> Mark:
        """To be taken before a row is read, and handed to `put` with what was read."""
        return Mark(self._hearing.epoch, self._drops)

    def put(self, key: Key, value: Value, mark: Mark) -> None:
        """Kept, unless the key was dropped since ``mark``."""
        if self.was_dropped(key, mark):
            return
        self._held[key] = (mark.epoch, value)
        self._held.move_to_end(key)
        if len(self._held) > self._capacity:
            self._held.popitem(last=False)

    def was_dropped(self, key: Key, mark: Mark) -> bool:
        """Since ``mark``, so that what was read then is out of date."""
        return mark.drops < self._dropped_at.get(key, self._all_dropped_at)

    def drop(self, key: Key) -> None:
        self.distrust(key)
        self._held.pop(key, None)

    def distrust(self, key: Key) -> None:
        """Whoever is reading the key's row just now has read it too early."""
        self._drops += 1
        self._dropped_at[key] = self._drops
        self._dropped_at.move_to_end(key)
        if len(self._dropped_at) > _DROPS_REMEMBERED:
            _key, self._all_dropped_at = self._dropped_at.popitem(last=False)

    def drop_where(self, is_meant: Callable[[Value], bool]) -> None:
        """For a change that does not name the key."""
        self._drops += 1
        self._all_dropped_at = self._drops
        self._dropped_at.clear()
        for key in [key for key, (_epoch, value) in self._held.items() if is_meant(value)]:
            del self._held[key]
