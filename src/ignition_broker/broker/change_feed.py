"""The change feed: whether this process learns of changes at once, and what it may serve from
memory meanwhile.

The product promises that no replica serves a token a second after its disconnect. A LISTEN
connection that merely looks open can't keep that promise: the process may have been stopped, the
network be gone, or a pooler stand between. So memory is trusted only for `TRUST_SECONDS` after this
process sent the newest notification of its own that came back on that connection: that one came
back proves that every change committed before it has arrived. See
docs/decisions/0010-proof-of-listening.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ignition_broker.bounded_map import BoundedMap
from ignition_broker.clock import Clock

TRUST_SECONDS = 0.9
PATIENCE_SECONDS = 1.0
"""How long to wait for Postgres where memory holds an older value that would do."""
_DROPS_REMEMBERED = 10_000

Key = TypeVar("Key")
Value = TypeVar("Value")


class ChangeFeed:
    """The state of this process's LISTEN connection; `storage.listen.Listener` reports to it.

    ``epoch`` changes whenever a change may have been missed.
    """

    def __init__(self, clock: Clock) -> None:
        self._monotonic = clock.monotonic
        self._trusted_until = 0.0
        self.epoch = 0
        self.is_failing = False
        """Postgres answers but changes don't arrive. Unlike in an outage of Postgres, others may
        be changing what memory holds, so none of it may be used, however old it may be."""

    def listening_began(self) -> None:
        """Whatever memory held before may have changed unnoticed."""
        self.epoch += 1

    def delivery_confirmed(self, sent_at: float) -> None:
        """A notification that this process sent at ``sent_at`` (monotonic clock) came back."""
        self._trusted_until = sent_at + TRUST_SECONDS
        self.is_failing = False

    def delivery_failed(self) -> None:
        """A notification was sent and did not come back."""
        self.is_failing = True

    def listening_ended(self) -> None:
        """The connection is closed or broken."""
        self.epoch += 1
        self._trusted_until = 0.0

    @property
    def is_trusted(self) -> bool:
        """Whether every change up to a moment ago has arrived."""
        return self._monotonic() < self._trusted_until


@dataclass(frozen=True, slots=True)
class ReadMark:
    """Taken right before a row is read: the epoch and the number of drops so far."""

    epoch: int
    drops: int


class ChangeFeedCache(Generic[Key, Value]):
    """A bounded map that serves a value only while the change feed shows it to be current.

    The least recently used entry makes room for a new one. Take a `mark` before reading a row and
    hand it to `put` with what was read: a value that was dropped in between is not kept.
    """

    def __init__(self, change_feed: ChangeFeed, capacity: int) -> None:
        self._change_feed = change_feed
        self._held: BoundedMap[Key, tuple[int, Value]] = BoundedMap(capacity)
        self._drops = 0
        self._dropped_at: BoundedMap[Key, int] = BoundedMap(_DROPS_REMEMBERED)
        self._all_dropped_at = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def drops(self) -> int:
        """How many drops there have been; an unchanged number means that nothing was dropped."""
        return self._drops

    def get(self, key: Key) -> Value | None:
        """The value if it is known to be current."""
        held = self._held.get(key)
        if held is None or held[0] != self._change_feed.epoch or not self._change_feed.is_trusted:
            return None
        self._held.move_to_end(key)
        return held[1]

    def get_stale(self, key: Key) -> Value | None:
        """May be outdated; use only when Postgres is unreachable. None while the feed fails."""
        held = None if self._change_feed.is_failing else self._held.get(key)
        return None if held is None else held[1]

    def get_of_epoch(self, key: Key, epoch: int) -> Value | None:
        """The value if it was read or stored in that epoch of the change feed."""
        held = self._held.get(key)
        return None if held is None or held[0] != epoch else held[1]

    def mark(self) -> ReadMark:
        """Call it before reading a row."""
        return ReadMark(self._change_feed.epoch, self._drops)

    def put(self, key: Key, value: Value, mark: ReadMark) -> None:
        """Keeps the value unless the key was dropped since ``mark``."""
        if self.was_dropped(key, mark):
            return
        self._held.store(key, (mark.epoch, value))

    def was_dropped(self, key: Key, mark: ReadMark) -> bool:
        """Whether the key was dropped since ``mark``, so that what was read then is outdated."""
        return mark.drops < self._dropped_at.get(key, self._all_dropped_at)

    def drop(self, key: Key) -> None:
        """Forgets the key, and rejects what is being read of it just now."""
        self.reject_reads(key)
        self._held.pop(key, None)

    def reject_reads(self, key: Key) -> None:
        """The key's row has changed: `put` rejects what was read of it before."""
        self._drops += 1
        forgotten = self._dropped_at.store(key, self._drops)
        if forgotten is not None:
            _key, self._all_dropped_at = forgotten

    def drop_where(self, is_meant: Callable[[Value], bool]) -> None:
        """As `drop`, for a change that does not name its keys: forgets every value that
        ``is_meant`` accepts, and rejects all that is being read just now."""
        self._drops += 1
        self._all_dropped_at = self._drops
        self._dropped_at.clear()
        for key in [key for key, (_epoch, value) in self._held.items() if is_meant(value)]:
            del self._held[key]
