"""What a replica says of one tenant's calls, and what it is told in answer. Values alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Allowance:
    """``calls`` in ``seconds``, for one tenant."""

    calls: int
    seconds: float

    @property
    def turn_margin_seconds(self) -> float:
        """How long after a window's end the next one begins: Ignition tells whole seconds, and its
        clock is not ours."""
        return min(1.0, self.seconds / 5)

    @property
    def lease_seconds(self) -> float:
        """How long a replica may use a chunk without a word. A killed one's is over by then."""
        return min(10.0, max(2.0, self.seconds / 10))

    @property
    def chunk(self) -> int:
        """How many calls a replica holds at most: 20, or more where windows are large, so that
        hundreds of calls a second don't cost dozens of statements."""
        return max(20, self.calls // 500)


@dataclass(frozen=True, slots=True)
class KeyReport:
    """One key's calls in a window so far, at one replica.

    ``used``: made. ``wanted``: made or refused, the first and last of them at ``first_at`` and
    ``last_at``. ``waiting``: callers who wait now.
    """

    used: int
    wanted: int
    first_at: float
    last_at: float
    waiting: int = 0
    weight: int = 1
    reserve: int = 0


@dataclass(frozen=True, slots=True)
class Heard:
    """What Ignition's answers said of the window that the replica is in.

    ``counted``: the most calls that it has counted. ``calls``: how many there are in all.
    ``ends_at``: when the window ends. ``at``: when the newest answer came. ``spent_until``: it
    refused a call for that long. None: it did not say.
    """

    at: float
    counted: int | None = None
    calls: int | None = None
    ends_at: float | None = None
    spent_until: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What one replica has to say; moments are on the database's clock.

    ``number``: the window that ``keys`` are about, 0 for none. ``has_turned``: Ignition said that a
    later one has begun, and they are about that. ``in_flight``: calls of ``keys`` that were not
    answered; ``carried``: such of the window before. ``is_active``: whether calls were made of
    late, so that it wants a chunk.
    """

    replica: str
    number: int
    has_turned: bool
    in_flight: int
    carried: int
    is_active: bool
    heard: Heard | None
    keys: Mapping[str, KeyReport] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a key stands: ``headroom`` calls are left to it, of which this replica lets it make
    ``here`` before it reports again. Without headroom, it is worth asking again at ``retry_at``."""

    headroom: int
    here: int
    retry_at: float
    is_passing: bool = False
    """What is missing is held by other replicas, who may give it back at any moment."""
